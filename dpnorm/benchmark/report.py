"""The files of a run's report."""

from dpnorm.benchmark.exports import timings_csv, to_csv, to_json, to_parquet
from dpnorm.benchmark.html import to_html
from dpnorm.benchmark.markdown import to_markdown
from dpnorm.benchmark.results import BenchmarkResult
from dpnorm.benchmark.storage import Storage


def write_report(result: BenchmarkResult, storage: Storage) -> None:
    """Writes the files of a run's report.

    Raises:
        StorageError: one cannot be written.
    """
    files: tuple[tuple[str, str | bytes], ...] = (
        ("results.csv", to_csv(result)),
        ("results.parquet", to_parquet(result)),
        ("timings.csv", timings_csv(result)),
        ("results.json", to_json(result)),
        ("report.md", to_markdown(result)),
        ("report.html", to_html(result)),
    )
    for name, content in files:
        data = content if isinstance(content, bytes) else content.encode()
        storage.write(f"{result.name}/{name}", data)
