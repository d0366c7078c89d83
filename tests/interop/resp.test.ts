/**
 * `examples/resp.ts`, with `redis-cli`, `redis-benchmark`, and npm's `redis` and `ioredis` as the clients, and with `redis-server` to
 * compare its answers with.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { connect } from "@sockets/server";
import { join } from "node:path";
import { test } from "node:test";
import { type Example, Program, run, runtimeName, serving, testWith, withFolder } from "./programs.ts";

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
    assertMatch(await ask(server, ["fly"]), /^ERR unknown command 'fly', with args/);
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

testWith("redis-cli", "resp: redis-cli in RESP3", () =>
  serving("resp.ts", LISTEN, async (server) => {
    assertEquals(await ask(server, ["-3", "get", "nothing"]), "\n");
    assertEquals(await ask(server, ["-3", "config", "get", "save"]), "save \n");
    assertMatch(await ask(server, ["-3", "hello", "3"]), /^server redis\nversion /);
  }));

/** Conversations that Redis and the example have in the same words. `#` stands for what is sent after HELLO 3 too. */
const CONVERSATIONS = [
  "PING",
  "PING a",
  "PING a b",
  "ECHO",
  "# GET none",
  "GET",
  "SET k v\r\nGET k",
  "SET k v x",
  "# SET k v\r\nMGET k none l\r\nMGET",
  "INCR n\r\nINCRBY n 41\r\nINCRBY n -43\r\nGET n",
  ...["007", "-0", "+1", "' 5'", "'5 '", "1e3", "5.0", "''", "9223372036854775808", "-9223372036854775809", "0x10"].flatMap((
    number,
  ) => [
    `SET n ${number}\r\nINCR n`,
    `INCRBY m ${number}`,
  ]),
  "SET n 9223372036854775807\r\nINCR n",
  "SET n 9223372036854775806\r\nINCR n\r\nGET n",
  "SET n -9223372036854775808\r\nINCRBY n -1\r\nINCR n",
  "INCRBY m x\r\nLPUSH l a\r\nINCR l\r\nINCRBY l x",
  "# LPUSH l a b c\r\nLLEN l\r\nLPOP l 0\r\nLPOP l 2\r\nLPOP l\r\nLPOP l\r\nLPOP l 2\r\nLPOP l -1\r\nLPOP l x\r\nLPOP l 0",
  "LPUSH l a\r\nGET l\r\nDEL l l\r\nEXISTS l",
  "FLUSHALL\r\nFLUSHALL ASYNC\r\nFLUSHALL no\r\nDBSIZE",
  "fly",
  "FLY me to the",
  `fly ${"long".repeat(40)} away`,
  `${"x".repeat(200)} a`,
  "# HELLO",
  "HELLO 2",
  "HELLO 3",
  "HELLO 4",
  "HELLO x",
  "HELLO 03",
  "HELLO 3 FOO",
  "HELLO 3 AUTH default x SETNAME me\r\nCLIENT GETNAME",
  "HELLO 3 AUTH bob x",
  "HELLO 3 AUTH bob",
  "HELLO 3 SETNAME",
  "HELLO 3 SETNAME 'a b'\r\nGET none",
  "HELLO 3 SETNAME a FOO",
  "AUTH",
  "AUTH x",
  "AUTH default x",
  "AUTH bob x",
  "AUTH a b c",
  "SELECT 0",
  "SELECT 99",
  "SELECT -1",
  "SELECT x",
  "CLIENT",
  "CLIENT FOO",
  "# CLIENT GETNAME\r\nCLIENT SETNAME me\r\nCLIENT GETNAME\r\nCLIENT SETNAME ''\r\nCLIENT GETNAME",
  "CLIENT SETNAME",
  'CLIENT SETNAME "a\\n"',
  "CLIENT ID x",
  "# CONFIG GET save",
  "CONFIG",
  "CONFIG GET",
  "CONFIG FOO",
  "# COMMAND DOCS none",
  "COMMAND FOO",
  "QUIT",
  "QUIT now\r\nPING",
  'GET "a b"',
  'GET "a',
  "GET 'a",
  'GET "a"b',
  "GET 'a'b",
  "ECHO 'a\\'b\\n'",
  'ECHO "\\x41\\xfg\\xFF\\n\\t\\a\\b\\r\\q\\\\\\""',
  'ECHO "a\\',
  'ECHO foo"bar baz"',
  "ECHO a'b'\"c\"",
  'ECHO ""',
  '""',
  "  ECHO \t a  ",
  "ECHO \x0b\x0c a",
  "ECHO a\x0bb",
  "*0\r\n*-1\r\n\r\n  \r\nPING",
  "*1\r\n",
  "*1\r\nPING",
  "*1\r\n$x",
  "*1\r\n$-1",
  "*x",
  "*1x",
  "POST / HTTP/1.1\r\nHost: x",
  "GET / HTTP/1.1\r\nHost: x\r\nPING",
  "PING\r\nhost: x\r\nPING",
  "*2\r\n$4\r\nPOST\r\n$1\r\nx",
];

/** Whom a conversation is with: what it answers, until it has nothing to say, or the end of the stream. */
async function converse(address: string, said: string): Promise<string> {
  const client = await connect(address);
  let heard = "";
  try {
    // Who cuts a client off doesn't answer the last one. All of it at once: what Redis has not read when it closes costs its answer.
    await client.write(Uint8Array.from(`${said}\r\nPING done\r\n`, (character) => character.charCodeAt(0)));
    while (!heard.endsWith("done\r\n")) {
      const chunk = await client.read();
      if (chunk === null) return `${heard}<end>`;
      heard += Buffer.from(chunk).toString("latin1");
    }
    return heard;
  } catch (error) {
    // With input that nobody has read the end is a reset.
    assert(["ECONNRESET", "EPIPE"].includes((error as { code: string }).code), String(error));
    return `${heard}<end>`;
  } finally {
    await client.close().catch(() => {});
  }
}

testWith(
  "redis-server",
  "resp: the answers are those of redis-server",
  () =>
    withFolder((folder) =>
      serving("resp.ts", LISTEN, async (server) => {
        const redis = new Program("redis-server", [
          "--port",
          "0",
          "--unixsocket",
          join(folder, "redis"),
          "--save",
          "",
          "--dir",
          folder,
        ]);
        try {
          while (!(await redis.line()).includes("accept connections"));
          // What is different in each server, and in each conversation.
          const known = (answers: string) =>
            answers.replace(/(version\r\n)\$\d+\r\n[\d.]+/g, "$1VERSION").replace(/(id\r\n):\d+/g, "$1:ID");
          const different: unknown[] = [];
          for (const conversation of CONVERSATIONS) {
            const words = conversation.replace(/^# /, "");
            for (const said of words === conversation ? [words] : [words, `HELLO 3\r\n${words}`]) {
              const [expected, answered] = [`unix:${join(folder, "redis")}`, server.addresses[0]!].map(async (address) => {
                await converse(address, "FLUSHALL");
                return known(await converse(address, said));
              });
              if (await answered !== await expected) different.push({ said, answered: await answered, expected: await expected });
            }
          }
          assertEquals(different, []);
        } finally {
          redis.kill("SIGKILL");
          await redis.exited;
        }
      }, (stderr) => /^Possible SECURITY ATTACK: tcp:[^\n]*\n$/.test(stderr))
    ),
);

/** A package of npm, without its types; `null` when it is not installed. */
async function load(name: string): Promise<Record<string, unknown> | null> {
  try {
    return await import(name);
  } catch {
    return null;
  }
}

/** What the clients of npm have in common. */
type NpmClient = Record<string, (...args: unknown[]) => Promise<unknown>> & {
  on(event: "error", listener: (error: Error) => void): void;
};

/** Tests an npm package as the client, which `open` connects. */
async function testPackage(
  name: string,
  variants: object[],
  open: (library: never, port: number, options: object) => Promise<NpmClient>,
) {
  const library = await load(name);
  for (const options of variants) {
    const title = `${runtimeName} resp: npm's ${name} ${JSON.stringify(options)}`;
    if (library === null) {
      test(`${title} [skipped: ${name} is not installed; npm install does that]`, { skip: true }, () => {});
      continue;
    }
    test(title, () =>
      serving("resp.ts", LISTEN, async (server) => {
        const client = await open(library as never, Number(server.port), options);
        const errors: Error[] = [];
        client.on("error", (error) => errors.push(error));
        const call = (command: string, ...args: unknown[]) =>
          (client[command] ?? client[command.toLowerCase()]!).call(client, ...args);
        assertEquals(await call("ping"), "PONG");
        assertEquals(await call("set", "color", "dark red"), "OK");
        assertEquals(await call("get", "color"), "dark red");
        assertEquals(await call("get", "nothing"), null);
        assertEquals(await call("mGet", ["color", "nothing"]), ["dark red", null]);
        assertEquals(
          await Promise.all(Array.from({ length: 100 }, () => call("incr", "visits"))),
          Array.from(Array(100), (_, i) => i + 1),
        );
        assertEquals(await call("lPush", "list", ["a", "b"]), 2);
        assertEquals(await call("lPop", "list"), "b");
        assertEquals(await call("exists", "color"), 1);
        assertEquals(await call("dbSize"), 3);
        const refused = await call("incr", "color").then(() => null, (error: Error) => error.message);
        assertEquals(refused, "ERR value is not an integer or out of range");
        await call("quit");
        assertEquals(errors, []);
      }));
  }
}

await testPackage(
  "redis",
  [{}, { RESP: 2 }, { RESP: 3, name: "me" }, { username: "default", password: "any", database: 0 }],
  async ({ createClient }: { createClient(options: object): NpmClient }, port, options) => {
    const client = createClient({ url: `redis://127.0.0.1:${port}`, socket: { reconnectStrategy: false }, ...options });
    await client.connect!();
    return client;
  },
);
await testPackage(
  "ioredis",
  [{}, { connectionName: "me" }, { protocol: 2 }, { protocol: 3, password: "any", username: "default" }],
  ({ Redis }: { Redis: new (options: object) => NpmClient }, port, options) =>
    Promise.resolve(new Redis({ host: "127.0.0.1", port, retryStrategy: () => null, ...options })),
);
