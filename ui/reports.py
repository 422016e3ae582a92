"""Reports to open and to take along: self-contained HTML files, made when they are asked for.

/report/<evaluation>.html             what came of one changed model, with everything it came from
/report/<evaluations>/compare.html    several side by side; their ids joined by +
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from storage import Store
from ui.context import Context

MAX_COMPARED = 24


def render_report(store: Store, run_id: str) -> str:
    """The report about one evaluation.

    Raises:
        NotFoundError: there is no such evaluation.
    """
    # Not before it is needed: the pages shall be there soon after they are started.
    from hfi.jobs.report import report_html
    from hfi.jobs.side_by_side import find_evaluation

    run = find_evaluation(store, "", run_id)
    return report_html(store, str(run.config.get("project", "")), run)


def render_comparison(store: Store, run_ids: str) -> str:
    """Several evaluations side by side; different protocols are named in the table.

    Raises:
        NotFoundError: one of them is no evaluation.
    """
    from hfi.jobs.compare import compare_html
    from hfi.jobs.side_by_side import find_evaluation

    runs = [find_evaluation(store, "", run_id).id for run_id in run_ids.split("+")[:MAX_COMPARED]]
    return compare_html(store, runs)


def build_reports(context: Context) -> APIRouter:
    """The routes above, for researchers; ``?save`` makes the browser keep the file instead of showing it."""
    router = APIRouter()

    def answer(request: Request, html: str, name: str) -> Response:
        kind = "attachment" if "save" in request.query_params else "inline"
        headers = {"Content-Disposition": f'{kind}; filename="{name}"', "Cache-Control": "private, no-store"}
        return HTMLResponse(html, headers=headers)

    @router.get("/report/{run_id}.html")
    async def show_report(request: Request, run_id: str) -> Response:
        await context.run(context.require, request, "researcher")
        html = await context.run(render_report, context.store, run_id)
        return answer(request, html, f"report-{run_id}.html")

    @router.get("/report/{run_ids}/compare.html")
    async def show_comparison(request: Request, run_ids: str) -> Response:
        await context.run(context.require, request, "researcher")
        html = await context.run(render_comparison, context.store, run_ids)
        return answer(request, html, "compare.html")

    return router
