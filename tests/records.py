"""A sink that keeps what it gets."""


class Records:
    """Takes records, rows and snapshots into lists."""

    def __init__(self):
        self.records, self.rows, self.snapshots = [], [], []

    def write(self, record):
        self.records.append(record)

    def write_row(self, row):
        self.rows.append(row)

    def write_snapshot(self, snapshot):
        self.snapshots.append(snapshot)

    def flush(self):
        pass

    def table(self, name, codebook=None):
        """The rows of one table, of one codebook or of all."""
        return [row for row in self.rows if row.table == name and codebook in (None, row.codebook)]
