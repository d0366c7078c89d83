/** The stats against what the clients counted, for datagrams and for handlers in threads and processes; `limits.test.ts` has the rest. */
import { assertEquals } from "@std/assert";
import { AsyncUDPServer, BaseRequestHandler, type Datagram, getRuntime, type Runtime } from "@sockets/server";
import { memory } from "@sockets/server/testing";
import { after, test } from "node:test";
import { adapters } from "./adapters.ts";
import { openDatagramClient } from "./datagram_clients.ts";
import { until } from "./serving.ts";
import { FEW, type Mode, serving, STREAM } from "./worker_serving.ts";
import { generator } from "../unit/generator.ts";

// Connections in memory don't keep the program running; some test runners don't either.
const alive = setInterval(() => {}, 1000);
after(() => clearInterval(alive));

const DATAGRAMS = 1000;
const CONNECTIONS = 100;
const REJECTED = 45; // "-"
const FAILING = 120; // "x"

for (const runtime of [getRuntime(), memory]) {
  test(`${runtime.name} udp async: what the server counted is what the clients counted`, () => datagrams(runtime));
}
for (const mode of ["threading", "forking"] as const) {
  test(`${getRuntime().name} tcp ${mode}: what the server counted is what the clients counted`, () => connections(mode));
}

/** One in fifty fails, one in fifty is turned away; the others are echoed. */
async function datagrams(runtime: Runtime): Promise<void> {
  class Echo extends BaseRequestHandler<Datagram> {
    override handle(): void | Promise<void> {
      if (this.request.data[0] === FAILING) throw new Error("a handler's own");
      return this.request.reply(this.request.data);
    }
  }
  const server = new AsyncUDPServer("udp://127.0.0.1:0", Echo, { runtime });
  let failures = 0;
  server.handleError = () => void failures++;
  server.verifyRequest = ({ data }) => data[0] !== REJECTED;
  await server.activate();
  const served = server.serveForever();
  const random = generator(7);
  const counted = { failed: 0, rejected: 0, echoed: 0, sent: 0, received: 0 };
  let left = DATAGRAMS;
  await Promise.all(Array.from({ length: 4 }, async () => {
    const client = await openDatagramClient(server);
    while (left-- > 0) {
      const dice = Math.floor(random() * 50);
      const text = (dice === 0 ? "x" : dice === 1 ? "-" : "e").repeat(1 + Math.floor(random() * 1000));
      await client.send(text);
      counted.sent += text.length;
      if (dice === 0) counted.failed++;
      else if (dice === 1) counted.rejected++;
      else {
        const { data } = await client.receive();
        counted.received += data.length;
        counted.echoed++;
      }
    }
    await client.close();
  }));
  await until(() => server.stats.accepted === DATAGRAMS && server.stats.active === 0);
  const { errors, rejected, datagramsSent, bytesRead, bytesWritten, truncated, dropped } = server.stats;
  assertEquals(
    { failed: errors, rejected, echoed: datagramsSent, sent: bytesRead, received: bytesWritten },
    counted,
  );
  assertEquals([failures, truncated, dropped], [counted.failed, 0, 0]);
  await server.shutdown();
  await served;
  await server.serverClose();
}

/** One in ten fails, one in ten is reset; the others are echoed. */
async function connections(mode: Mode): Promise<void> {
  const adapter = adapters[0]!;
  const handlers = new URL("./handlers/limits.ts", import.meta.url);
  await serving(STREAM[mode].tcp, adapter.freshAddress(), handlers, FEW[mode], async (server) => {
    const random = generator(11);
    const counted = { failed: 0, reset: 0, echoed: 0, sent: 0, received: 0 };
    let left = CONNECTIONS;
    await Promise.all(Array.from({ length: 8 }, async () => {
      while (left-- > 0) {
        const dice = Math.floor(random() * 10);
        const text = dice === 0 ? "T" : "e".repeat(1 + Math.floor(random() * 2000));
        const client = await adapter.open(server);
        await client.write(text);
        counted.sent += text.length;
        if (dice > 0) {
          assertEquals(await client.read(text.length), text);
          counted.received += text.length;
        }
        if (dice === 1) {
          client.reset();
          await client.gone;
          counted.reset++;
          continue;
        }
        if (dice === 0) counted.failed++;
        else counted.echoed++;
        if (dice > 0) await client.end();
        await client.readAll();
        if (dice === 0) await client.end().catch(() => {});
      }
    }));
    await until(() => server.stats.active === 0);
    const { accepted, errors, ended, bytesRead, bytesWritten } = server.stats;
    assertEquals(
      {
        failed: ended["handler error"],
        reset: ended.reset,
        echoed: ended["peer closed"],
        sent: bytesRead,
        received: bytesWritten,
      },
      counted,
    );
    assertEquals([accepted, errors, server.errors.length], [CONNECTIONS, counted.failed + counted.reset, errors]);
  });
}
