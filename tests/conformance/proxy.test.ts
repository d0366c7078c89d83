/** Servers behind a load balancer that speaks the PROXY protocol: whom they see, and what becomes of a connection without its header. */
import { assertEquals, assertRejects } from "@std/assert";
import {
  type Address,
  AsyncTCPServer,
  AsyncUnixStreamServer,
  type EndReason,
  TCPServer,
  type TCPServerOptions,
  UnixStreamServer,
} from "@sockets/server";
import { memory } from "@sockets/server/testing";
import { after, test } from "node:test";
import { checksummed, hostAndPort, text, tlv, v2 } from "../proxy_headers.ts";
import { type Adapter, adapters, type Client } from "./adapters.ts";
import Facts from "./handlers/proxy.ts";
import { gate, type Quiet, serving, until } from "./serving.ts";
import { FEW, serving as servingWorkers, STREAM } from "./worker_serving.ts";

const SERVERS = {
  tcp: { sequential: TCPServer, async: AsyncTCPServer },
  unix: { sequential: UnixStreamServer, async: AsyncUnixStreamServer },
};
const V1 = text("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
const INET = hostAndPort([192, 0, 2, 1], [198, 51, 100, 2], 56324, 443);
const INET6 = hostAndPort([0x20, 1, 0xd, 0xb8, ...Array(11).fill(0), 1], [...Array(15).fill(0), 1], 56324, 443);
const CLIENT: Address = { transport: "tcp", hostname: "192.0.2.1", port: 56324 };
const CLIENT6: Address = { transport: "tcp", hostname: "2001:db8::1", port: 56324 };
const SITE: Address = { transport: "tcp", hostname: "198.51.100.2", port: 443 };
const UNIX = v2(0x21, 0x31, [
  ...text("/run/client"),
  ...Array(97).fill(0),
  ...text("/run/site"),
  ...Array(99).fill(0),
]);

/** What the handler tells. */
interface Told {
  clientAddress: Address | null;
  remoteAddress: Address;
  localAddress: Address;
  proxy: {
    version: number;
    command: string;
    source: Address | null;
    destination: Address | null;
    authority: string | null;
    uniqueId: number[] | null;
    size: number;
  } | null;
}

// Connections in memory don't keep the program running; some test runners do neither.
const alive = setInterval(() => {}, 1000);
after(() => clearInterval(alive));

for (const adapter of adapters) {
  cases(adapter);
  if (adapter.transport === "tcp") networks(adapter);
  for (const mode of ["threading", "forking"] as const) workers(adapter, mode);
}

/** Reads a line, and what has come with it. */
async function line(client: Client): Promise<string> {
  let line = "";
  while (!line.includes("\n")) {
    const more = await client.read(1);
    if (more === "") throw new Error(`the stream ended after ${JSON.stringify(line)}`);
    line += more;
  }
  return line;
}

/** Reads what the handler tells, and so much of what it sends back. */
async function facts(client: Client, echoed = ""): Promise<Told> {
  const text = await line(client);
  const end = text.indexOf("\n") + 1;
  const missing = end + echoed.length - text.length;
  assertEquals(text.slice(end) + (missing > 0 ? await client.read(missing) : ""), echoed);
  return JSON.parse(text.slice(0, end));
}

/** Sends what may meet a connection that is gone already. */
async function send(client: Client, bytes: Uint8Array | string): Promise<void> {
  await client.write(bytes).catch(() => {});
}

async function leave(client: Client): Promise<void> {
  await client.end();
  await client.readAll();
}

/** What the handler tells of a client with this header. */
async function told(adapter: Adapter, server: TCPServer, header: Uint8Array): Promise<Told> {
  const client = await adapter.open(server);
  await client.write(header);
  const told = await facts(client);
  await leave(client);
  return told;
}

function cases(adapter: Adapter): void {
  const { runtime, transport } = adapter;
  const { sequential, async } = SERVERS[transport];
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} ${transport}: proxy: ${name}`, body);
  const during = (use: (server: TCPServer & Quiet) => Promise<void>, options: TCPServerOptions = {}) => () =>
    serving(adapter, async, Facts, use, { proxyProtocol: true, ...options });
  /** Whom the server sees without a header that says so. */
  const isPeer = (address: Address) =>
    assertEquals("path" in address ? "" : address.hostname, transport === "unix" ? "" : "127.0.0.1");

  const named: [string, Uint8Array, number, Address, Address][] = [
    ["version 1, IPv4", V1, 1, CLIENT, SITE],
    ["version 1, IPv6", text("PROXY TCP6 2001:db8::1 ::1 56324 443\r\n"), 1, CLIENT6, { ...SITE, hostname: "::1" } as Address],
    ["version 2, IPv4", v2(0x21, 0x11, INET), 2, CLIENT, SITE],
    ["version 2, IPv6", v2(0x21, 0x21, INET6), 2, CLIENT6, { ...SITE, hostname: "::1" } as Address],
    ["version 2, Unix", UNIX, 2, { transport: "unix", path: "/run/client" }, { transport: "unix", path: "/run/site" }],
  ];
  for (const [name, header, version, source, destination] of named) {
    it(
      `${name}: the client is the one that the header names; the local address stays the server's`,
      during(async (server) => {
        const seen: (Address | null)[] = [];
        server.verifyRequest = (request, clientAddress) => {
          seen.push(clientAddress, request.remoteAddress);
          return true;
        };
        const { clientAddress, remoteAddress, localAddress, proxy } = await told(adapter, server, header);
        assertEquals([clientAddress, remoteAddress, ...seen], [source, source, source, source]);
        assertEquals(localAddress, server.serverAddress);
        assertEquals(proxy, {
          version,
          command: "PROXY",
          source,
          destination,
          authority: null,
          uniqueId: null,
          size: header.length,
        });
      }),
    );
  }

  const unnamed: [string, Uint8Array, string][] = [
    ["LOCAL", v2(0x20, 0x11, INET), "LOCAL"],
    ["UNSPEC", v2(0x21, 0x00, []), "PROXY"],
    ["UDP over IPv4", v2(0x21, 0x12, INET), "PROXY"],
    ["UDP over IPv6", v2(0x21, 0x22, INET6), "PROXY"],
    ["Unix datagram", v2(0x21, 0x32, new Array(216).fill(97)), "PROXY"],
    ["UNKNOWN", text("PROXY UNKNOWN 192.0.2.1 192.0.2.1 1 2\r\n"), "PROXY"],
  ];
  for (const [name, header, command] of unnamed) {
    it(
      `${name}: the client is the peer itself`,
      during(async (server) => {
        const { clientAddress, remoteAddress, proxy } = await told(adapter, server, header);
        isPeer(remoteAddress);
        if (transport === "unix") assertEquals(clientAddress, null);
        else isPeer(clientAddress!);
        assertEquals([proxy!.command, proxy!.source, proxy!.destination], [command, null, null]);
      }),
    );
  }

  it(
    "TLVs are there for the handler",
    during(async (server) => {
      const rest = [...INET, ...tlv(2, text("example.org")), ...tlv(3, [0, 0, 0, 0]), ...tlv(5, [7, 0, 255])];
      const { proxy } = await told(adapter, server, checksummed(v2(0x21, 0x11, rest)));
      assertEquals([proxy!.authority, proxy!.uniqueId], ["example.org", [7, 0, 255]]);
    }),
  );

  it(
    "what comes with the header and after it is the stream; the header is not counted",
    during(async (server) => {
      const ended = gate<EndReason>();
      server.handleEnd = (_request, _clientAddress, reason) => ended.resolve(reason);
      const client = await adapter.open(server);
      await client.write(Uint8Array.from([...V1, ...text("with it ")]));
      await facts(client, "with it ");
      await client.write("after it");
      assertEquals(await client.read(8), "after it");
      await leave(client);
      assertEquals([await ended.promise, server.stats.bytesRead], ["peer closed", 16]);
    }),
  );

  it(
    "a header that trickles in byte by byte, with the end of the stream behind it",
    during(async (server) => {
      for (const header of [V1, v2(0x21, 0x21, INET6)]) {
        const client = await adapter.open(server);
        for (const byte of header) await client.write(Uint8Array.of(byte));
        await client.write("x");
        await client.end();
        const all = new TextDecoder().decode(await client.readAll());
        assertEquals(all.slice(all.indexOf("\n")), "\nx");
        assertEquals(JSON.parse(all.slice(0, -1)).proxy.source.port, 56324);
      }
    }),
  );

  it(
    "a plain client's connection has no proxy",
    during(async (server) => {
      const client = await adapter.open(server);
      const { proxy } = await facts(client);
      assertEquals(proxy, null);
      await leave(client);
    }, { proxyProtocol: false }),
  );

  const bad: [string, (client: Client) => Promise<void>, TCPServerOptions?][] = [
    ["garbage", (client) => send(client, "GET / HTTP/1.1\r\n\r\n")],
    ["a header that is wrong", (client) => send(client, "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n")],
    ["a wrong checksum", (client) => send(client, v2(0x21, 0x11, [...INET, ...tlv(3, [1, 2, 3, 4])]))],
    ["a line without end", (client) => send(client, "PROXY UNKNOWN " + "x".repeat(100))],
    ["a header that is too long", (client) => send(client, v2(0x21, 0x11, Array(4097).fill(0)).subarray(0, 16))],
    ["the end of the stream within the header", async (client) => {
      await send(client, V1.subarray(0, 20));
      await client.end();
    }],
    ["nothing but the end of the stream", (client) => client.end()],
    ["a header that is not done in time", (client) => send(client, V1.subarray(0, 20)), { proxyTimeout: 20 }],
    ["nothing at all in time", async () => {}, { proxyTimeout: 20 }],
  ];
  for (const [name, use, options] of bad) {
    it(`${name}: that connection ends, is counted, and is nobody's error`, () => {
      const ended = gate<[unknown, Address | null, EndReason]>();
      return during(async (server) => {
        server.handleEnd = (...end) => ended.resolve(end);
        const client = await adapter.open(server);
        await use(client);
        assertEquals(new TextDecoder().decode(await client.readAll()), "");
        const [request, clientAddress, reason] = await ended.promise;
        assertEquals([request, reason], [null, "bad proxy header"]);
        if (transport === "unix") assertEquals(clientAddress, null);
        else isPeer(clientAddress!);
        const { accepted, refused, errors, ended: counts } = server.stats;
        assertEquals([accepted, refused, errors, server.errors, counts["bad proxy header"]], [0, 1, 0, [], 1]);
        await client.end().catch(() => {});
      }, options)();
    });
  }

  if (transport === "tcp") {
    it(
      "a reset within the header is counted like that too",
      during(async (server) => {
        const client = await adapter.open(server);
        await client.write(V1.subarray(0, 20));
        client.reset();
        await until(() => server.stats.ended["bad proxy header"] === 1);
        assertEquals(server.errors, []);
      }),
    );
  }

  if (transport === "tcp") {
    it(
      "a health check, which resets after its header, is nobody's error; a client's reset is one",
      during(async (server) => {
        const resets = async (request: string) => {
          const { reset } = server.stats.ended;
          const client = await adapter.open(server);
          await client.write(V1);
          await client.write(request);
          await facts(client, request);
          client.reset();
          await until(() => server.stats.ended.reset > reset);
        };
        await resets("");
        assertEquals([server.errors, server.stats.errors], [[], 0]);
        await resets("request");
        assertEquals([server.errors.length, server.stats.errors], [1, 1]);
      }),
    );
  }

  for (const [name, Server] of Object.entries({ sequential, async })) {
    it(`${name}: those that say nothing hold up nobody`, () =>
      serving(adapter, Server, Facts, async (server) => {
        const silent = await Promise.all(Array.from({ length: 20 }, () => adapter.open(server)));
        for (let i = 0; i < 3; i++) assertEquals((await told(adapter, server, V1)).clientAddress, CLIENT);
        await silent[0]!.write(V1);
        await line(silent[0]!);
        for (const client of silent) client.reset();
      }, { proxyProtocol: true, proxyTimeout: Infinity }));
  }

  it(
    "at most maxConnections, those without their header included; more wait",
    during(async (server) => {
      const silent = await Promise.all([adapter.open(server), adapter.open(server)]);
      const waiting = told(adapter, server, V1);
      await silent[0]!.write(V1);
      await line(silent[0]!);
      assertEquals([server.stats.active, server.stats.accepted], [1, 1]);
      await leave(silent[0]!);
      assertEquals((await waiting).clientAddress, CLIENT);
      await silent[1]!.write(V1);
      await line(silent[1]!);
      await leave(silent[1]!);
    }, { maxConnections: 2, proxyTimeout: Infinity }),
  );

  it(
    "a server that closes aborts those without their header",
    during(async (server) => {
      const silent = await adapter.open(server);
      await told(adapter, server, V1);
      await server.serverClose();
      assertEquals(await silent.readAll(), new Uint8Array());
      assertEquals(server.stats.ended["bad proxy header"], 0);
      await silent.end().catch(() => {});
    }, { proxyTimeout: Infinity }),
  );

  it(
    "deny and the limits per address are about the client, not the balancer",
    during(async (server) => {
      const from = (host: string) => text(`PROXY TCP4 ${host} 198.51.100.2 1 2\r\n`);
      const refused = async (header: Uint8Array) => {
        const client = await adapter.open(server);
        await send(client, header);
        assertEquals(await client.readAll(), new Uint8Array());
        await client.end().catch(() => {});
      };
      const first = await adapter.open(server);
      await first.write(from("192.0.2.1"));
      await line(first);
      await refused(from("203.0.113.9"));
      await refused(from("192.0.2.1"));
      await told(adapter, server, from("192.0.2.2"));
      await leave(first);
      const { ended } = server.stats;
      assertEquals([ended.denied, ended["max connections per address"], ended["bad proxy header"]], [1, 1, 0]);
    }, { deny: ["203.0.113.0/24"], maxConnectionsPerAddress: 1 }),
  );

  it("what can't be is said before anything is bound", async () => {
    const wrong: [TCPServerOptions, new (...args: never[]) => Error, string][] = [
      [{ proxyProtocol: ["10.0.0.0/33"] }, TypeError, "proxyProtocol must hold networks"],
      [{ proxyProtocol: "10.0.0.0/8" as never }, TypeError, "proxyProtocol must be"],
      [{ proxyTimeout: 0 }, RangeError, "proxyTimeout must be more than 0"],
      [{ proxyTimeout: -1 }, RangeError, "proxyTimeout"],
    ];
    for (const [options, Kind, message] of wrong) {
      const server = new async(adapter.freshAddress(), Facts, { runtime, ...options });
      await assertRejects(() => server.activate(), Kind as never, message);
    }
  });
}

/** Headers from some networks only; the whole of 127.0.0.0/8 is this machine, and in memory everybody is 127.0.0.1. */
function networks(adapter: Adapter): void {
  const it = (name: string, body: () => Promise<void>) => void test(`${adapter.runtime.name} tcp: proxy: ${name}`, body);

  it("from one of the balancers' networks the header is demanded", () =>
    serving(adapter, AsyncTCPServer, Facts, async (server) => {
      assertEquals((await told(adapter, server, V1)).clientAddress, CLIENT);
      const client = await adapter.open(server);
      await send(client, "plain");
      assertEquals(await client.readAll(), new Uint8Array());
      assertEquals(server.stats.ended["bad proxy header"], 1);
      await client.end().catch(() => {});
    }, { proxyProtocol: ["10.0.0.0/8", "127.0.0.1"] }));

  it("from elsewhere a connection is a plain client's, and a header part of its stream", () =>
    serving(adapter, AsyncTCPServer, Facts, async (server) => {
      const from = adapter.runtime === memory ? undefined : "127.0.0.2";
      const client = await adapter.open(server, from);
      // The handler speaks first: nobody waits for a header.
      const { clientAddress, proxy } = await facts(client);
      assertEquals([(clientAddress as { hostname: string }).hostname, proxy], [from ?? "127.0.0.1", null]);
      await client.write(V1);
      assertEquals(await line(client), new TextDecoder().decode(V1));
      await leave(client);
    }, { proxyProtocol: adapter.runtime === memory ? ["127.0.0.2"] : ["127.0.0.1"] }));
}

function workers(adapter: Adapter, mode: "threading" | "forking"): void {
  const { runtime, transport } = adapter;
  test(`${runtime.name} ${transport} ${mode}: proxy: the worker knows the client and what the header says`, () =>
    servingWorkers(
      STREAM[mode][transport],
      adapter.freshAddress(),
      new URL("./handlers/proxy.ts", import.meta.url),
      { runtime, ...FEW[mode], proxyProtocol: true },
      async (server) => {
        const header = v2(0x21, 0x21, [...INET6, ...tlv(2, text("example.org")), ...tlv(5, [0, 255])]);
        const client = await adapter.open(server);
        await client.write(Uint8Array.from([...header, ...text("with it")]));
        const { clientAddress, remoteAddress, proxy } = await facts(client, "with it");
        assertEquals([clientAddress, remoteAddress, proxy!.source], [CLIENT6, CLIENT6, CLIENT6]);
        assertEquals([proxy!.authority, proxy!.uniqueId, proxy!.size], ["example.org", [0, 255], header.length]);
        await leave(client);
        const bad = await adapter.open(server);
        await send(bad, "garbage");
        assertEquals(await bad.readAll(), new Uint8Array());
        await bad.end().catch(() => {});
        assertEquals([server.stats.ended["bad proxy header"], server.errors], [1, []]);
      },
    ));
}
