"""The table at the end of a run of the fault tests; see `table`."""

import json
import os
from pathlib import Path

from tests.reliability import table
from tests.reliability.faults import FAULTS


PROPERTY = "finding"


def pytest_terminal_summary(terminalreporter):
    """Prints what was found, and writes it into the page that RELIABILITY_PAGE names.

    What was found before is kept in a record, so that one kind of fault can be measured again alone.
    """
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    findings = [json.loads(value) for report in reports for name, value in report.user_properties if name == PROPERTY]
    if not findings:
        return
    terminalreporter.section("faults, what became of them, and what was lost")
    for line in table.as_text(table.rows_of(findings)):
        terminalreporter.write_line(line)
    page = os.environ.get("RELIABILITY_PAGE")
    if page:
        record = Path(os.environ.get("RELIABILITY_RECORD", "build/reliability.json"))
        known = table.merged(record, findings, len(FAULTS))
        not_applicable = {(fault.kind, fault.name) for fault in FAULTS.values() if fault.stock is None}
        table.write_into(Path(page), table.as_markdown(table.rows_of(known), not_applicable))
