"""`xoar tcb`: brings the shards' images up to date, counts them, shows the figures."""

from __future__ import annotations

from xoar.cli import output
from xoar.host import assembly, tcb, up
from xoar.host.apt import Apt
from xoar.host.build import micropython, nano
from xoar.host.config import Config
from xoar.host.progress import Reporter


def report(config: Config) -> tcb.Report:
    """The figures of all shards, with the images of a configuration. Raises HostError."""
    show = Reporter()
    system = Apt(show)
    images = [entry for image in config.images.values() for entry in up.image_entries(image, system, show)]
    hypervisor = assembly.hypervisor(system, show, config.host.xen_source)
    made = assembly.assemble(system, show, images, hypervisor)
    core = nano.core(micropython.build(system, show), hypervisor, show)
    return tcb.report(made.images, made.shards, core.compiler, -(-made.bundle.stat().st_size // 1024))


def show(figures: tcb.Report) -> None:
    """The figures as a table and a sentence."""
    rows = [
        (
            image.name,
            *map(str, (image.python_lines, image.nano_lines, image.micropython_lines, image.total_lines)),
            output.size(-(-image.image_bytes // 1024)),
            output.size(image.memory_kib),
        )
        for image in figures.images
    ]
    columns = ("shard", "python", "nano", "micropython", "lines", "image", "memory")
    output.print_table(columns, rows, right=columns[1:])
    share = figures.privileged_lines / figures.paper_lines
    print(f"\nBootstrapper and Builder together, each file once: {figures.privileged_lines} lines;")
    print(f"the paper's Builder: {figures.paper_lines} lines; that is {share:.2f} times as many.")
    print(f"Memory of the shards that live on after boot: {output.size(figures.memory_kib)}.")
