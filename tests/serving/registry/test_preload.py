import asyncio

from propulsion.errors import AdapterCorruptError
from serving.registry.preload import preload
from serving.registry.resolution import Resolver
from tests.serving.registry.bench import Bench
from tests.serving.registry.stores import publish


def test_adapters_are_loaded_and_pinned_and_a_bad_one_is_left_out(store, caplog):
    for name in ("a", "b", "bad"):
        publish(store, name)

    def check(version) -> None:
        if version.name == "bad":
            raise AdapterCorruptError("damaged")

    async def scenario():
        bench = Bench(capacity=8, check=check)
        resolver = Resolver(store, bench.loader.residents)
        wanted = ["a", "bad", "nobody", "a:much", "", "a:0.5+b@latest:0.5"]
        assert await preload(wanted, resolver, bench.loader) == 2
        assert set(bench.loader.pins) == {"a@v1", "a@v1:0.5+b@v1:0.5"}
        assert set(bench.loader.residents) == set(bench.loader.pins)
        for reference in ("bad", "nobody", "a:much"):
            assert f"--preload {reference}: " in caplog.text

    asyncio.run(scenario())
