/** `examples/resp.ts`, with `redis-cli` and `redis-benchmark` as the clients. */
import { assertEquals, assertMatch } from "@std/assert";
import { type Example, run, serving, testWith } from "./programs.ts";

const LISTEN = ["--listen", "tcp://127.0.0.1:0"];

/** What redis-cli prints of a reply when nobody watches. */
async function ask(server: Example, args: string[], input = ""): Promise<string> {
  const { status, stdout, stderr } = await run("redis-cli", ["-p", server.port, ...args], input);
  assertEquals([status, stderr], [0, ""]);
  return stdout;
}

testWith("redis-cli", "resp: values, counters and lists", () =>
  serving("resp.ts", LISTEN, async (server) => {
    assertEquals(await ask(server, ["ping"]), "PONG\n");
    assertEquals(await ask(server, ["set", "color", "dark red"]), "OK\n");
    assertEquals(await ask(server, ["get", "color"]), "dark red\n");
    assertEquals(await ask(server, ["get", "nothing"]), "\n");
    assertEquals(await ask(server, ["incrby", "visits", "12"]), "12\n");
    assertEquals(await ask(server, ["lpush", "list", "a", "b"]), "2\n");
    assertEquals(await ask(server, ["lpop", "list"]), "b\n");
    assertEquals(await ask(server, ["exists", "color", "visits", "list", "nothing"]), "3\n");
    assertEquals(await ask(server, ["config", "get", "save"]), "save\n\n");
    assertMatch(await ask(server, ["fly"]), /^ERR unknown command 'FLY'\n/);
    assertMatch(await ask(server, ["info"]), /^db0:keys=3\r?$/m);
  }));

testWith(
  "redis-cli",
  "resp: commands of a pipe, and a value of half a megabyte",
  () =>
    serving("resp.ts", LISTEN, async (server) => {
      const value = "v".repeat(500_000);
      assertEquals(await ask(server, ["-x", "set", "large"], value), "OK\n");
      assertEquals(await ask(server, ["get", "large"]), value + "\n");
      const piped = await ask(server, ["--pipe"], "INCR n\r\n".repeat(10_000));
      assertMatch(piped, /errors: 0, replies: 10000\n/);
      assertEquals(await ask(server, ["get", "n"]), "10000\n");
    }),
);

for (const pipeline of ["1", "16"]) {
  testWith(
    "redis-benchmark",
    `resp: fifty clients, ${pipeline} commands at a time each`,
    () =>
      serving("resp.ts", LISTEN, async (server) => {
        const tests = "ping_inline,ping_mbulk,set,get,incr,lpush";
        const options = ["-p", server.port, "-t", tests, "-c", "50", "-n", "4000", "-P", pipeline, "--csv"];
        const { status, stdout, stderr } = await run("redis-benchmark", options);
        assertEquals([status, stderr], [0, ""]);
        const measured = stdout.trim().split("\n").slice(1).map((line) => line.split(",")[0]);
        assertEquals(measured, ['"PING_INLINE"', '"PING_MBULK"', '"SET"', '"GET"', '"INCR"', '"LPUSH"']);
        assertEquals(await ask(server, ["get", "counter:__rand_int__"]), "4000\n");
        assertEquals(await ask(server, ["llen", "mylist"]), "4000\n");
      }),
  );
}
