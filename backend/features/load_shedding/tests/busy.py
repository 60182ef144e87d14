"""The app with a route that keeps the CPU busy, as a server on the port that is its argument."""

import sys
import time

import uvicorn

from backend.main import create_app

SECONDS = 0.02

if __name__ == "__main__":
    app = create_app()

    @app.get("/busy")
    async def busy() -> str:
        """Public: for a test."""
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            pass
        return "done"

    app.router.routes.insert(0, app.router.routes.pop())  # before the pages of the dashboard
    uvicorn.run(app, port=int(sys.argv[1]), log_config=None, access_log=False)
