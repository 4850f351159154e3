"""What the programs in the guest and on the operator's machine report, as `xoar bench devices` reads it."""

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.host.bench import workloads
from xoar.host.errors import HostError

PING = """PING 10.0.2.2 (10.0.2.2) 56(84) bytes of data.

--- 10.0.2.2 ping statistics ---
40 packets transmitted, {received} received, {loss}% packet loss, time 2210ms
rtt min/avg/max/mdev = 0.913/1.250/4.310/0.402 ms
"""


def test_the_mean_round_trip_is_read():
    assert workloads.ping_ms(PING.format(received=40, loss=0)) == 1.25


@pytest.mark.parametrize("loss", ["2.5", "10", "50", "100"])
def test_a_lost_answer_is_a_failure(loss):
    with pytest.raises(HostError, match="not all"):
        workloads.ping_ms(PING.format(received=39, loss=loss))


@given(st.floats(1e3, 1e11))
def test_bits_per_second_become_megabits(rate):
    report = json.dumps({"end": {"sum_sent": {"bits_per_second": rate}}})
    assert workloads.megabits(report, "sum_sent") == pytest.approx(rate / 1e6)


@given(st.text() | st.sampled_from(["{}", "[]", "null", '{"end": 1}', '{"end": {"sum_sent": {}}}']))
def test_what_is_no_report_of_iperf3_is_a_failure(text):
    with pytest.raises(HostError, match="no figures"):
        workloads.megabits(text, "sum_sent")


def fio(error: int) -> str:
    return "fio: a warning\n" + json.dumps({"jobs": [{"error": error, "read": {"iops": 812.5}}]})


def test_warnings_before_fios_report_are_skipped():
    assert workloads.fio_job(fio(0))["read"]["iops"] == 812.5


def test_a_block_that_is_not_what_was_written_is_a_failure():
    with pytest.raises(HostError, match="errno 84"):
        workloads.fio_job(fio(84))


@given(st.text() | st.sampled_from(["{}", '{"jobs": []}', '{"jobs": [{}]}', "{"]))
def test_what_is_no_report_of_fio_is_a_failure(text):
    with pytest.raises(HostError, match="no figures"):
        workloads.fio_job(text)


def test_the_script_of_the_cpus_workload_is_shell():
    subprocess.run(["sh", "-n", "-c", workloads._COMPILE], check=True)


def test_rows_have_different_names():
    assert len({load.name for load in workloads.ALL}) == len(workloads.ALL)
