"""A sink that keeps what it gets."""


class Records:
    """Takes records into a list."""

    def __init__(self):
        self.records = []

    def write(self, record):
        self.records.append(record)

    def flush(self):
        pass
