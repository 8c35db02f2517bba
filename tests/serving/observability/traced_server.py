"""vLLM's own server on a base model, with all that is observed around it: BASE PORT OTLP_ENDPOINT.

Adapters are left out: what is tested with it is how vLLM's figures and headers are read.
"""

import asyncio
import sys

from serving.observability.logs import configure_logging
from serving.observability.metrics import ServeMetrics
from serving.observability.tracing import start_exporting, traces_url
from serving.observability.tracking import RequestTracking
from serving.orphans import announce_server


async def main(base: str, port: int, endpoint: str) -> None:
    import uvicorn

    from serving import vllm_compat
    from serving.observability.instrument import instrument_engine

    parser = vllm_compat.make_arg_parser(vllm_compat.FlexibleArgumentParser())
    options = "--dtype float32 --enforce-eager --max-model-len 128 --served-model-name tiny"
    args = parser.parse_args(["--model", base, *options.split()])
    args.otlp_traces_endpoint = traces_url(endpoint)
    engine_args = vllm_compat.AsyncEngineArgs.from_cli_args(args)
    metrics = ServeMetrics(8)
    async with vllm_compat.running_engine(engine_args) as engine:
        instrument_engine(engine, metrics)
        tasks = await engine.get_supported_tasks()
        app = vllm_compat.build_app(args, tasks, engine.model_config)
        await vllm_compat.init_app_state(engine, app.state, args, tasks)
        tracked = RequestTracking(app, metrics)
        await uvicorn.Server(uvicorn.Config(tracked, port=port, log_config=None)).serve()


if __name__ == "__main__":
    configure_logging("json", "info")
    # uvicorn ends the process by the signal that stops it.
    announce_server()
    stop = start_exporting(sys.argv[3])
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
    stop()
