/** What the default `handleError()` prints: of a peer that has left nothing, of what a peer did a line, of the program's errors the stack. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  AsyncTCPServer,
  AsyncUDPServer,
  AsyncUnixDatagramServer,
  AsyncUnixStreamServer,
  bind,
  formatAddress,
  getRuntime,
  parseAddress,
  type TCPServer,
  type UDPServer,
} from "@sockets/server";
import { memory } from "@sockets/server/testing";
import { createServer } from "node:net";
import { test } from "node:test";
import { detailOf } from "../../src/error_report.ts";
import { setRuntime } from "../../src/runtime.ts";
import { text, v2 } from "../proxy_headers.ts";
import { adapters, type Client, freshPath } from "./adapters.ts";
import Failing, { FailingReply } from "./handlers/failing.ts";
import { until } from "./serving.ts";
import { DATAGRAM, FEW, type Mode, STREAM } from "./worker_serving.ts";

const runtime = getRuntime();
const module = new URL("./handlers/failing.ts", import.meta.url);

/** What is printed while `use` runs, whole prints. */
async function printing(use: (printed: string[]) => Promise<void>): Promise<void> {
  const printed: string[] = [];
  setRuntime({ ...runtime, print: (text) => Promise.resolve(void printed.push(text)) });
  try {
    await use(printed);
  } finally {
    setRuntime(runtime);
  }
}

/** Serves while `use` runs. */
async function serving<S extends TCPServer | UDPServer>(server: S, use: (server: S) => Promise<void>): Promise<void> {
  await server.activate();
  const served = server.serveForever();
  try {
    await use(server);
  } finally {
    await server.shutdown({ drain: 0 });
    await server.serverClose();
    await served;
  }
}

interface Fault {
  /** What the handler is told to do. */
  command: string;
  /** What the client does once it does it. */
  then?: (client: Client) => unknown;
  /** What is printed; `null` for nothing. */
  expected: RegExp | null;
}

const TRACE = (error: string) =>
  new RegExp(`^-{40}\nException occurred on \\S+ during processing of request from [^\n]+\n  ${error}[^]*\n-{40}\n$`);
const LINE = (error: string) => new RegExp(`^\\S+: request from (an unnamed peer|\\S+): ${error}\n$`);

/** Each is tried in every mode; the address is one of another server's, which refuses or says nothing. */
const FAULTS: Record<string, Fault> = {
  "a peer that resets while it is read from": { command: "read", then: (client) => client.reset(), expected: null },
  "a peer that resets while it is written to": { command: "write", then: (client) => client.reset(), expected: null },
  "a peer that leaves before its next message": { command: "read", then: (client) => client.end(), expected: null },
  "a peer that leaves in the middle of a message": {
    command: "read",
    then: async (client) => {
      await client.write("half");
      await client.end();
    },
    expected: LINE("read ENODATA: the stream ended after 4 bytes, before the delimiter"),
  },
  "a peer that says nothing": { command: "slow", expected: LINE("read ETIMEDOUT: timed out") },
  "a peer that says too much": {
    command: "limit",
    then: (client) => client.write("x".repeat(100)),
    expected: LINE("read EMSGSIZE: no line within the limit of 16 bytes"),
  },
  "another server that refuses the handler": { command: "refused", expected: TRACE("SocketError: connect ECONNREFUSED: ") },
  "another server that keeps the handler waiting": { command: "elsewhere", expected: TRACE("SocketError: read ETIMEDOUT: ") },
  "a write after closeWrite()": { command: "ended", expected: TRACE("SocketError: write EPIPE: ") },
  "a system that is out of files": {
    command: "exhausted",
    expected: LINE("open EMFILE: too many open files \\(raise `ulimit -n` [^)]+\\), or lower maxConnections\\)"),
  },
  "a bug": { command: "bug", expected: TRACE("TypeError: a bug\n[^]*failing\\.ts[^]*\n  Caused by: Error: what caused it\n") },
  "a message that would forge a line": {
    command: "forge",
    expected: TRACE("Error: \\\\x1b\\[2J\\\\u202e\n  fake: tcp://192\\.0\\.2\\.1:80: all is well\\\\x0d\n"),
  },
};

for (const adapter of adapters) {
  const { transport } = adapter;
  const modes: ("async" | Mode)[] = adapter.runtime === memory ? ["async"] : ["async", "threading", "forking"];
  for (const mode of modes) {
    const make = (): TCPServer => {
      if (mode !== "async") {
        return new STREAM[mode][transport](adapter.freshAddress(), module, { ...adapter.options, ...FEW[mode] });
      }
      const Server = transport === "tcp" ? AsyncTCPServer : AsyncUnixStreamServer;
      return new Server(adapter.freshAddress(), Failing, adapter.options);
    };
    test(`${adapter.runtime.name} ${transport} ${mode}: what is printed of what goes wrong`, () =>
      printing((printed) =>
        serving(make(), async (server) => {
          const silent = createServer((socket) => void socket.on("error", () => {}));
          await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
          const { port } = silent.address() as { port: number };
          const closed = createServer();
          await new Promise<void>((resolve) => closed.listen(0, "127.0.0.1", resolve));
          const { port: unused } = closed.address() as { port: number };
          await new Promise((resolve) => closed.close(resolve));
          try {
            for (const [name, { command, then, expected }] of Object.entries(FAULTS)) {
              const before = server.stats.errors;
              printed.length = 0;
              const client = await adapter.open(server);
              await client.write(`${command} tcp://127.0.0.1:${command === "refused" ? unused : port}\n`);
              assertEquals((await client.read(1))[0], "+", name);
              await then?.(client);
              await until(() => server.stats.errors > before);
              // Nothing more comes of it later.
              client.reset();
              await until(() => server.stats.active === 0);
              assertEquals(server.stats.errors, before + 1, name);
              if (expected === null) assertEquals(printed, [], name);
              else {
                assertEquals(printed.length, 1, name);
                assertMatch(printed[0]!, expected, name);
                if (client.port !== undefined) assert(printed[0]!.includes(`from tcp://127.0.0.1:${client.port}`), printed[0]);
              }
            }
          } finally {
            silent.close();
          }
        })
      ));
  }
}

for (const mode of ["async", "threading", "forking"] as const) {
  for (const transport of ["udp", "unixgram"] as const) {
    const { unixDatagram } = runtime.capabilities;
    const skip = transport === "unixgram" && unixDatagram !== true ? ` [skipped: ${unixDatagram}]` : "";
    const fresh = () => transport === "udp" ? "udp://127.0.0.1:0" : `unixgram:${freshPath()}`;
    const make = (): UDPServer => {
      if (mode !== "async") return new DATAGRAM[mode][transport](fresh(), new URL("#FailingReply", module), FEW[mode]);
      return new (transport === "udp" ? AsyncUDPServer : AsyncUnixDatagramServer)(fresh(), FailingReply);
    };
    test(`${runtime.name} ${transport} ${mode}: a reply to nobody is no news, one that is too long is a bug${skip}`, {
      skip: skip !== "",
    }, () =>
      printing((printed) =>
        serving(make(), async (server) => {
          const client = await bind(fresh());
          const address = formatAddress(client.address);
          await client.send("1000000", server.serverAddress);
          await until(() => server.stats.errors === 1);
          assertEquals(printed.length, 1);
          assertMatch(printed[0]!, TRACE("SocketError: (send|sendto) EMSGSIZE: "));
          assert(printed[0]!.includes(`from ${address}\n`), printed[0]);
          printed.length = 0;
          if (transport === "unixgram") {
            // It is gone before the answer.
            server.suspend();
            await client.send("1", server.serverAddress);
            await client.close();
            server.resume();
            await until(() => server.stats.errors === 2);
          } else await client.close();
          assertEquals(printed, []);
        })
      ));
  }
}

if (runtime.capabilities.unixDatagram === true) {
  test(`${runtime.name} unixgram: a peer's name forges no line`, () =>
    printing((printed) =>
      serving(new AsyncUnixDatagramServer(`unixgram:${freshPath()}`, FailingReply), async (server) => {
        const path = `${freshPath()}\n\x1b[31mroot\x7f\u202e`;
        const client = await bind({ transport: "unixgram", path });
        await client.send("1000000", server.serverAddress);
        await until(() => printed.length === 1);
        await client.close();
        assertEquals(printed[0]!.split("\n")[1]!.split(" request from ")[1], `unixgram:${printable(path)}`);
        assertEquals(parseAddress(`unixgram:${printable(path)}`), { transport: "unixgram", path });
      })
    ));
}

test(`${runtime.name}: the name that a PROXY header gives a peer forges no line`, () =>
  printing((printed) =>
    serving(
      new AsyncTCPServer("tcp://127.0.0.1:0", Failing, { proxyProtocol: true }),
      async (server) => {
        const path = "/run/x\n\x1b[31mroot\x7f";
        const name = [...text(path)];
        const padded = [...name, ...new Array(108 - name.length).fill(0)];
        const client = await adapters[0]!.open(server);
        await client.write(v2(0x21, 0x31, [...padded, ...padded]));
        await client.write("bug\n");
        await until(() => printed.length === 1);
        client.reset();
        assertEquals(printed[0]!.split("\n")[1]!.split(" request from ")[1], `unix:${printable(path)}`);
        // What the monitor shows, and what the metrics are labelled with, is the same text.
        assertEquals(formatAddress({ transport: "unix", path }), `unix:${printable(path)}`);
      },
    )
  ));

test("of an AggregateError the worst counts; an error that can't be read is the program's", () => {
  const code = (code: string) => Object.assign(new Error(code), { code });
  assertEquals(detailOf(null, new AggregateError([code("EMFILE"), code("ENOSPC")])), "line");
  assertEquals(detailOf(null, new AggregateError([code("EMFILE"), new Error("a bug")])), "stack");
  assertEquals(detailOf(null, new AggregateError([])), "stack");
  for (const odd of [undefined, null, "text", 1n, Object.create(null), new Proxy({}, { get: () => assert(false, "read") })]) {
    assertEquals(detailOf(null, odd), "stack");
  }
});

function printable(path: string): string {
  return path.replace("\n", "\\x0a").replace("\x1b", "\\x1b").replace("\x7f", "\\x7f").replace("\u202e", "\\u202e");
}
