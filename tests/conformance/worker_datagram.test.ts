/**
 * The promises of a datagram server, kept where the handler runs in a thread or a child process: the cases of `datagram.test.ts` that make
 * sense there. A server for each transport and mode serves them all.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type Datagram,
  formatAddress,
  getRuntime,
  type SocketError,
  SystemExit,
  type UDPServer,
  UnsupportedError,
} from "@sockets/server";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, test } from "node:test";
import { freshPath } from "./adapters.ts";
import { type DatagramClient, openDatagramClient, PerlClient, UdpClient } from "./datagram_clients.ts";
import { until } from "./serving.ts";
import { DATAGRAM, type Errors, FEW, type Mode } from "./worker_serving.ts";

const runtime = getRuntime();
const handler = new URL("./handlers/datagram.ts#Commands", import.meta.url);
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

type Server = UDPServer & Errors;
const started: Promise<Server>[] = [];

after(async () => {
  for (const server of started) await (await server).serverClose();
});

for (const mode of ["threading", "forking"] as const) {
  const { unixDatagram } = runtime.capabilities;
  cases(mode, "udp");
  if (unixDatagram === true) cases(mode, "unixgram");
  else {
    test(`${runtime.name} unixgram ${mode}: an error says what would make it work, before any worker is started`, async () => {
      const server = new DATAGRAM[mode].unixgram(`unixgram:${freshPath()}`, handler, { runtime });
      const error = await assertRejects(() => server.activate(), UnsupportedError);
      assert(error.message.includes(unixDatagram), error.message);
      assertEquals(mode === "threading" ? server.threads : server.activeChildren.size, 0);
      await server.serverClose();
    });
  }
}

for (const transport of ["udp", "unixgram"] as const) {
  if (transport === "unixgram" && runtime.capabilities.unixDatagram !== true) continue;
  test(`${runtime.name} ${transport} forking: clients that are gone before the answer keep no process and no request`, async () => {
    const address = transport === "udp" ? "udp://127.0.0.1:0" : `unixgram:${freshPath()}`;
    const echo = new URL("./handlers/datagram.ts", import.meta.url);
    const server = new DATAGRAM.forking[transport](address, echo, { maxChildren: 2, requestsPerChild: 5 }) as unknown as Server;
    server.errors = [];
    server.handleError = (_request: unknown, _clientAddress: unknown, error: unknown) => void server.errors.push(error);
    await server.activate();
    const served = server.serveForever();
    try {
      for (let i = 0; i < 9; i++) {
        const client = await openDatagramClient(server);
        await client.send("ignored");
        await client.close();
      }
      await until(() => server.stats.active === 0 && server.stats.accepted === 9);
      const client = await openDatagramClient(server);
      await client.send("answered");
      assertEquals(text((await client.receive()).data), "answered");
      await client.close();
      await until(() => server.stats.active === 0);
      // On a Unix socket it shows that nobody is there any more.
      for (const error of server.errors) assert(["ENOENT", "ECONNREFUSED"].includes((error as SocketError).code), String(error));
    } finally {
      await server.serverClose({ drain: 0 });
    }
    await served;
  });
}

function make(mode: Mode, transport: "udp" | "unixgram"): Server {
  const address = transport === "udp" ? "udp://127.0.0.1:0" : `unixgram:${freshPath()}`;
  const server = new DATAGRAM[mode][transport](address, handler, { runtime, ...FEW[mode] });
  server.errors = [];
  server.handleError = (_request: unknown, _clientAddress: unknown, error: unknown) => void server.errors.push(error);
  return server as unknown as Server;
}

function cases(mode: Mode, transport: "udp" | "unixgram"): void {
  const it = (name: string, body: () => Promise<void>) => void test(`${runtime.name} ${transport} ${mode}: ${name}`, body);

  let running: Promise<Server> | undefined;
  /** Uses the server that all share, with a client of its own. */
  const during = (use: (server: Server, client: DatagramClient) => Promise<void>) => async () => {
    if (running === undefined) {
      running = (async () => {
        const server = make(mode, transport);
        await server.activate();
        server.serveForever().catch(() => {});
        return server;
      })();
      started.push(running);
    }
    const server = await running;
    server.errors = [];
    const client = await openDatagramClient(server);
    await use(server, client).finally(() => client.close());
    await until(() => server.stats.active === 0);
  };

  it(
    "the handler sees who sent it, and sends from the server's own address to whom it wants",
    during(async (server, client) => {
      const other = await openDatagramClient(server);
      await client.send("who");
      const { data, from } = await client.receive();
      const seen = JSON.parse(text(data)).map(formatAddress);
      assertEquals(seen, [client.address, client.address, formatAddress(server.serverAddress)]);
      assertEquals(from, formatAddress(server.serverAddress));
      await client.send(`tell ${other.address}`);
      const told = await other.receive();
      assertEquals([text(told.data), told.from], ["told", from]);
      await other.close();
    }),
  );

  it(
    "a datagram is a Uint8Array that the handler may keep and change",
    during(async (_server, client) => {
      const kept = new Set<string>();
      // One of the two workers has it the second time at the latest.
      for (let i = 0; i < 3; i++) {
        await client.send("keep");
        kept.add(text((await client.receive()).data));
      }
      kept.delete(`["Uint8Array",4,null]`);
      assertEquals([...kept], [`["Uint8Array",4,[7,7,7,7]]`]);
    }),
  );

  it(
    "verifyRequest false turns a datagram away",
    during(async (server, client) => {
      const { rejected } = server.stats;
      server.verifyRequest = (request: Datagram) => text(request.data) === "good";
      try {
        await client.send("bad");
        await client.send("good");
        assertEquals(text((await client.receive()).data), "good");
      } finally {
        server.verifyRequest = () => true;
      }
      assertEquals(server.stats.rejected - rejected, 1);
    }),
  );

  it(
    "a request does not wait for another that computes",
    during(async (_server, client) => {
      const enough = freshPath();
      for (const what of [`compute ${enough}`, "quick"]) await client.send(what);
      assertEquals(text((await client.receive()).data), "quick");
      writeFileSync(enough, "");
      assertEquals(text((await client.receive()).data), "computed");
      rmSync(enough);
    }),
  );

  it(
    "a reply to a peer that is gone fails, if at all, for that reply alone",
    during(async (server, client) => {
      if (transport === "udp") {
        const gone = await UdpClient.open((server.serverAddress as { port: number }).port, "127.0.0.1");
        const { address } = gone;
        await gone.close();
        for (let i = 0; i < 3; i++) await client.send(`tell ${address}`);
      } else {
        await client.send(`tell unixgram:${freshPath()}`);
        await until(() => server.errors.length === 1);
        assertEquals((server.errors[0] as SocketError).code, "ENOENT");
      }
      await client.send("alive");
      assertEquals(text((await client.receive()).data), "alive");
    }),
  );

  it(
    "a handler that ignores that it was aborted is ended by force, and the server serves again",
    during(async (server, client) => {
      await client.send("ignore");
      assertEquals(text((await client.receive()).data), "ignoring");
      await server.shutdown({ drain: 0 });
      assertEquals([server.stats.active, server.errors.length], [0, 0]);
      server.serveForever().catch(() => {});
      await client.send("again");
      assertEquals(text((await client.receive()).data), "again");
    }),
  );

  if (transport === "unixgram") {
    it(
      "a peer whose path is no UTF-8 is known by its bytes, and is answered",
      during(async (server) => {
        const folder = mkdtempSync(`${tmpdir()}/sockets-`);
        const path = `${folder}/p\udcff\udcfe`;
        const peer = await PerlClient.open((server.serverAddress as { path: string }).path, path);
        await peer.send("who");
        assertEquals(JSON.parse(text((await peer.receive()).data))[0], { transport, path });
        await peer.close();
        // Deno's file functions don't take the bytes.
        execFileSync("rm", ["-r", folder]);
      }),
    );

    it(
      "a sender without a name has no clientAddress, and reply says that there is nobody to reply to",
      during(async (server) => {
        const anonymous = await PerlClient.open((server.serverAddress as { path: string }).path, null);
        await anonymous.send("x");
        await until(() => server.errors.length === 1);
        const { code, message } = server.errors[0] as SocketError;
        assertEquals(code, "EDESTADDRREQ");
        assert(message.includes("nobody to reply to"), message);
        await anonymous.close();
      }),
    );

    it(
      "a peer that takes nothing costs its own replies alone",
      during(async (server, client) => {
        const deaf = await PerlClient.open((server.serverAddress as { path: string }).path, freshPath());
        deaf.quiet();
        await deaf.send("many");
        await until(() => server.errors.length === 1);
        assertEquals((server.errors[0] as SocketError).code, "EAGAIN");
        await client.send("one");
        assertEquals(text((await client.receive()).data), "one");
        await deaf.close();
      }),
    );
  }

  it("serverClose lets the replies of requests in progress leave, those that nobody awaits too", async () => {
    const server = make(mode, transport);
    await server.activate();
    const served = server.serveForever();
    const client = await openDatagramClient(server);
    const released = freshPath();
    await client.send(`answer ${released}`);
    assertEquals(text((await client.receive()).data), "begun");
    const closing = server.serverClose();
    writeFileSync(released, "");
    const answers = [await client.receive(), await client.receive()].map(({ data }) => text(data));
    assertEquals(answers.sort(), ["awaited", "not awaited"]);
    await Promise.all([closing, served, client.close()]);
    assertEquals(server.errors, []);
    rmSync(released);
  });

  it("with blockOnClose off serverClose waits for nobody, and a reply later is an error of its handler", async () => {
    const server = make(mode, transport);
    server.blockOnClose = false;
    await server.activate();
    const served = server.serveForever();
    const client = await openDatagramClient(server);
    const released = freshPath();
    await client.send(`answer ${released}`);
    assertEquals(text((await client.receive()).data), "begun");
    await server.serverClose();
    await served;
    writeFileSync(released, "");
    await until(() => server.activeRequests.size === 0);
    assertEquals(server.errors.map((error) => (error as SocketError).code), ["ECONNABORTED"]);
    await client.close();
    rmSync(released);
  });

  it("SystemExit in a worker ends serveForever; handleRequest handles one", async () => {
    const server = make(mode, transport);
    await server.activate();
    const client = await openDatagramClient(server);
    const handled = server.handleRequest();
    await client.send("one");
    assertEquals(text((await client.receive()).data), "one");
    await handled;
    const rejected = assertRejects(() => server.serveForever(), SystemExit);
    await client.send("system-exit");
    assertEquals((await rejected).exitCode, 3);
    await client.close();
    await server.serverClose();
  });
}
