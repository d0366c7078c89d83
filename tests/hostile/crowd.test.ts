/** Peers by the thousand against `examples/echo.ts`: a client beside them goes on, and when they are gone nothing is left of them. */
import { assert, assertEquals } from "@std/assert";
import { type InetAddress, parseAddress } from "@sockets/server";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { test } from "node:test";
import { type Client, openSocket } from "../conformance/adapters.ts";
import { type Example, serving } from "../interop/programs.ts";
import { descriptors, memory, notLinux, recovered, title } from "./victim.ts";

const skip = notLinux !== false;
/** Descriptors that a process needs for the rest. */
const SPARE = 500;
/** The most descriptors that a process may have: the runtimes raise the limit so far by themselves. */
const most = skip ? 0 : Number(/^Max open files +\d+ +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))![1]);
/** At once: with more, the listener's queue is full and the kernel lets them try again after a second. */
const AT_ONCE = 200;

/** `many` clients, each of which has done `first`; they are made a few at a time. */
async function crowd(server: Example, many: number, first: (socket: Socket) => Promise<void>): Promise<Socket[]> {
  const { hostname: host, port } = parseAddress(server.addresses[0]!) as InetAddress;
  const sockets: Socket[] = [];
  const next = async () => {
    while (sockets.length < many) {
      const socket = connect({ host, port, allowHalfOpen: true });
      sockets.push(socket);
      await new Promise<void>((resolve, reject) => {
        socket.once("error", reject);
        socket.once("connect", () => {
          socket.off("error", reject);
          // How it ends doesn't matter any more.
          socket.on("error", () => {});
          resolve();
        });
      });
      await first(socket);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, next));
  return sockets;
}

/** Sends a byte and gets it back: this client is served, and not only waiting. */
async function served(socket: Socket): Promise<void> {
  const answer = new Promise((resolve) => socket.once("data", resolve));
  socket.write("x");
  await answer;
}

async function gone(sockets: Socket[], leave: (socket: Socket) => void): Promise<void> {
  await Promise.all(sockets.map((socket) => {
    if (socket.closed) return;
    const closed = new Promise((resolve) => socket.once("close", resolve));
    leave(socket);
    return closed;
  }));
}

async function echoes(client: Client, times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    await client.write(`message ${String(i).padStart(6)}`);
    assertEquals(await client.read(14), `message ${String(i).padStart(6)}`);
  }
}

/** What a runtime sets aside for garbage may grow for a dozen attacks before it is enough. */
const MOST_ATTACKS = 30;

/**
 * Runs `attack` with an honest client beside it, again and again until once nothing more is left in memory than before: garbage comes
 * to an end, what each peer leaves behind doesn't.
 */
function besideAnHonestClient(peers: number, attack: (server: Example, honest: Client) => Promise<void>): Promise<void> {
  return serving("echo.ts", ["--listen", "tcp://127.0.0.1:0"], async (server) => {
    const honest = await openSocket(parseAddress(server.addresses[0]!));
    await echoes(honest, 10);
    const before = descriptors(server);
    const grown: number[] = [];
    do {
      assert(grown.length < MOST_ATTACKS, `memory grows by so many bytes at each attack: ${grown}`);
      const used = memory(server);
      await attack(server, honest);
      await recovered(server, before);
      grown.push(memory(server) - used);
    } while (grown.at(-1)! > Math.max(peers * 1024, 4 << 20));
    await echoes(honest, 10);
    await honest.end();
    await honest.readAll();
    // That peers have reset their connections is told; nothing else is to be.
  }, (stderr) => (stderr.match(/^Exception occurred/gm)?.length ?? 0) === (stderr.match(/ECONNRESET|EPIPE/g)?.length ?? 0));
}

/** As many as the server and this test may each have descriptors for. */
const HELD = Math.min(10_000, most - SPARE);

test(
  title(`${HELD} connections are held while another client echoes`),
  { skip },
  () =>
    besideAnHonestClient(HELD, async (server, honest) => {
      const held = await crowd(server, HELD, served);
      await echoes(honest, 200);
      await gone(held, (socket) => socket.destroy());
    }),
);

test(
  title("two thousand peers end their side and never close the other"),
  { skip },
  () =>
    besideAnHonestClient(40000, async (server, honest) => {
      const before = descriptors(server);
      const held = await crowd(server, 2000, async (socket) => {
        await served(socket);
        socket.end();
      });
      await echoes(honest, 50);
      // The server is rid of them while they still hold their ends.
      await recovered(server, before);
      await gone(held, (socket) => socket.destroy());
    }),
);

test(
  title("two thousand connections are reset, before and after their first byte"),
  { skip },
  () =>
    besideAnHonestClient(2000, async (server, honest) => {
      let i = 0;
      const reset = await crowd(server, 2000, (socket) => {
        if (i++ % 2 === 0) socket.write("x");
        socket.resetAndDestroy();
        return Promise.resolve();
      });
      await echoes(honest, 50);
      await gone(reset, () => {});
    }),
);

test(title("a hundred peers send without ever reading"), { skip }, () =>
  besideAnHonestClient(4000, async (server, honest) => {
    const piece = new Uint8Array(2 << 20);
    const held = await crowd(server, 100, (socket) => {
      socket.pause();
      socket.write(piece);
      return Promise.resolve();
    });
    await echoes(honest, 50);
    await gone(held, (socket) => socket.resetAndDestroy());
  }));
