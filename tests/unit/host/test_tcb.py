import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.host import tcb
from xoar.host.build.nano import NANO, ShardImage
from xoar.host.errors import HostError
from xoar.privilege import shardset


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("int a;\n\n  \nint b;", 2),
        ("// no\n/* no\n no */\nint a; /* yes */\n", 1),
        ('char *a = "/* not a comment";\nint b; // */\nchar c = \'"\'; /* x */', 3),
        ("/* a */ int b; /* c\n d */ int e;", 2),
        ('#include "a.h"\n    movl $1, %eax /* why */\n', 2),
    ],
)
def test_lines_of_c_without_comments_are_counted(text, count):
    assert tcb.c_lines(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ('"""What it is.\n\nMore."""\n\nimport a  # why\n# no\n', 1),
        ('def f():\n    """Docs."""\n    return """one\n    two"""\n', 3),
        ("class A:\n    x = 1\n    '''What x is.'''\n", 2),
        ("f(\n    1,\n\n    # no\n    2,\n)\n", 4),
    ],
)
def test_lines_of_python_without_comments_and_docstrings_are_counted(text, count):
    assert tcb.python_lines(text) == count


@given(st.lists(st.sampled_from(["int a;", "", "// x", "/* x */", '"/*"; //', "/* a", "b */ c;"])))
def test_never_more_lines_are_counted_than_there_are(pieces):
    assert 0 <= tcb.c_lines("\n".join(pieces)) <= len(pieces)


def test_what_the_preprocessor_leaves_out_is_not_counted(tmp_path):
    (tmp_path / "b.h").write_text("int from_a_header;\n")
    path = tmp_path / "a.c"
    path.write_text(
        '#include "b.h"\n#if WANTED\nint a;\n#else\nint b;\nint c; // no\n#endif\nint d = WANTED;\n'
    )
    assert tcb.c_lines(tcb.preprocessed(path, ["gcc", "-DWANTED=1"])) == 2
    assert tcb.c_lines(tcb.preprocessed(path, ["gcc", "-DWANTED=0"])) == 3


def test_a_c_file_that_another_one_includes_is_counted_with_it(tmp_path):
    (tmp_path / "b.c").write_text("int b;\n\nint c;\n")
    path = tmp_path / "a.c"
    path.write_text('int a;\n#include "b.c"\nint d;\n')
    assert tcb.c_lines(tcb.preprocessed(path, ["gcc"])) == 4


def test_a_file_that_does_not_preprocess_is_named(tmp_path):
    path = tmp_path / "a.c"
    path.write_text("#error no\n")
    with pytest.raises(HostError, match=r"a\.c can't be preprocessed"):
        tcb.preprocessed(path, ["gcc"])


def test_a_file_in_both_privileged_images_is_counted_once(tmp_path):
    core, own, elf = tmp_path / "core.c", tmp_path / "own.py", tmp_path / "elf"
    core.write_text("int a;\nint b;\n")
    own.write_text("import x\n")
    elf.write_bytes(b"12345")
    port = NANO / "entry.S"
    images = [
        ShardImage("bootstrapper", elf, (core, port), {"x": own}),
        ShardImage("builder", elf, (core, port), {}),
        ShardImage("console", elf, (core,), {"x": own}),
    ]
    shards = shardset.load_all()
    report = tcb.report(images, shards, ["gcc"], 2049)
    assembly = tcb.c_lines(port.read_text())
    assert report.privileged_lines == 2 + 1 + assembly
    first, second = report.images[:2]
    assert (first.python_lines, first.nano_lines, first.micropython_lines) == (1, assembly, 2)
    assert (first.total_lines, first.image_bytes) == (3 + assembly, 5)
    assert first.memory_kib == shards.manifests["bootstrapper"].memory_kib
    assert second.memory_kib == (shards.manifests["builder"].memory_kib or 0) + 3 * 1024
    lasting = [m.memory_kib for m in shards.manifests.values() if (m.kind, m.lives) == ("shard", "forever")]
    assert report.memory_kib == sum(lasting) + 3 * 1024  # the library, for Builder
    assert report.as_dict()["images"][2]["name"] == "console"
