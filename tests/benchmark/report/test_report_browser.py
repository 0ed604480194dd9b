"""In Chromium the report sorts, filters, fits a phone, prints, and says nothing on its console."""

import pytest

from tests.benchmark.report.browser import ask, chromium, written

ROWS = "const rows = [...document.querySelectorAll('#results ~ .scroll tbody tr')];"
FIRST = ROWS + "const table = rows[0].closest('table');"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_opens_without_a_word_on_its_console(wide_page, tmp_path, width):
    shot = tmp_path / "shot.png"
    uri = written(tmp_path, wide_page)
    run = chromium(tmp_path, f"--window-size={width},2600", f"--screenshot={shot}", uri)
    assert shot.exists(), run.stderr
    assert "CONSOLE" not in run.stderr


def test_no_script_but_the_reports_own_can_run(wide_page, tmp_path):
    copy = wide_page.replace("</main>", "</main><script>document.title = 'broken into'</script>")
    run = chromium(tmp_path, "--dump-dom", written(tmp_path, copy))
    assert "<title>broken into</title>" not in run.stdout
    assert "CONSOLE" in run.stderr
    assert "Content Security Policy" in run.stderr


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("opened", [False, True])
def test_the_page_is_never_wider_than_the_window(wide_page, tmp_path, width, opened):
    folds = "for (const fold of document.querySelectorAll('details')) fold.open = true;"
    script = "return [document.documentElement.scrollWidth, innerWidth];"
    script = folds * opened + script
    (needed, window), errors = ask(tmp_path, wide_page, script, width)
    assert window == width
    assert needed <= window
    assert "CONSOLE" not in errors


def test_a_click_on_a_header_sorts_by_number_up_then_down_then_as_it_was(wide, wide_page, tmp_path):
    script = (
        FIRST
        + """
        const heads = [...table.tHead.rows[0].cells];
        const column = heads.findIndex((head) => head.textContent.startsWith("accuracy"));
        const button = heads[column].querySelector("button");
        const seen = () => [heads[column].getAttribute("aria-sort"),
            [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.v)];
        const before = seen();
        const after = [1, 2, 3].map(() => (button.click(), seen()));
        return [before, ...after, button.type, heads.length];
        """
    )
    (before, up, down, again, kind, _), errors = ask(tmp_path, wide_page, script)
    known = sorted(row.accuracy.value for row in wide.rows if row.accuracy is not None)
    missing = [""] * (len(wide.rows) - len(known))
    assert before[0] is None
    assert [float(v) for v in up[1] if v] == known
    assert [float(v) for v in down[1] if v] == known[::-1]
    assert up[1][len(known) :] == down[1][len(known) :] == missing
    assert [up[0], down[0]] == ["ascending", "descending"]
    assert again == before
    assert kind == "button"
    assert "CONSOLE" not in errors


def test_every_column_of_every_table_sorts(wide_page, tmp_path):
    script = """
        const bad = [];
        let columns = 0;
        for (const table of document.querySelectorAll("table.data")) {
          const rows = [...table.tBodies[0].rows];
          if (rows.length < 2) continue;
          [...table.tHead.rows[0].cells].forEach((head, column) => {
            columns += 1;
            head.querySelector("button").click();
            const cells = [...table.tBodies[0].rows].map((row) => row.cells[column]);
            const texts = cells.filter(Boolean).map((cell) => cell.dataset.v);
            const numbers = texts.filter((v) => v !== undefined && v !== "").map(Number);
            const sorted = numbers.every((n, i) => !i || numbers[i - 1] <= n);
            if (!sorted || cells.length !== rows.length) bad.push(head.textContent);
          });
        }
        return [columns, bad];
    """
    (columns, bad), errors = ask(tmp_path, wide_page, script)
    assert columns > 60
    assert bad == []
    assert "CONSOLE" not in errors


def test_the_field_and_the_choice_filter_rows_and_say_how_many_are_left(wide_page, tmp_path):
    script = (
        FIRST
        + """
        const controls = table.closest(".scroll").previousElementSibling;
        const [field, choice, count] = ["input", "select", "output"].map(
            (name) => controls.querySelector(name));
        const shown = () => [rows.filter((row) => row.getClientRects().length)
            .map((row) => row.cells[0].textContent), count.value];
        const set = (control, value, event) => {
          control.value = value;
          control.dispatchEvent(new Event(event));
          return shown();
        };
        return [shown(), set(field, "batch VOID", "input"), set(field, "batch", "input"),
            set(choice, "private-batch", "change"), set(field, "nothing like it", "input")];
        """
    )
    (everything, void, batch, private, nothing), errors = ask(tmp_path, wide_page, script)
    assert (len(everything[0]), everything[1]) == (72, "")
    assert void == [["batch"] * 4, "4 of 72 rows"]
    assert set(batch[0]) == {"batch", "private-batch"}
    assert private == [["private-batch"] * 6, "6 of 72 rows"]
    assert nothing == [[], "0 of 72 rows"]
    assert "CONSOLE" not in errors


def test_sorting_is_reached_by_keyboard_and_controls_have_names(wide_page, tmp_path):
    script = """
        const button = document.querySelector("thead button");
        button.focus();
        const fields = [...document.querySelectorAll(".controls input, .controls select")];
        return [document.activeElement === button, fields.length,
            fields.every((field) => field.labels.length === 1)];
    """
    (reached, fields, named), _ = ask(tmp_path, wide_page, script)
    assert reached
    assert fields > 5
    assert named


def test_statements_open_for_print_and_close_again(wide_page, tmp_path):
    script = """
        const open = () => document.querySelectorAll("details.paper[open]").length;
        const before = open();
        dispatchEvent(new Event("beforeprint"));
        const during = open();
        dispatchEvent(new Event("afterprint"));
        return [before, during, open(), document.querySelectorAll("details.paper").length];
    """
    (before, during, after, folds), _ = ask(tmp_path, wide_page, script)
    assert (before, after) == (0, 0)
    assert during == folds > 20


def test_a_hostile_name_runs_nothing(hostile_page, tmp_path):
    script = "return document.querySelectorAll('script').length;"
    scripts, errors = ask(tmp_path, hostile_page, script)
    assert scripts == 2
    assert "CONSOLE" not in errors
