/** How writes that wait are joined, and what their promises say. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { test } from "node:test";
import { SocketError } from "@sockets/server";
import { SendQueue } from "../../src/send_queue.ts";

/** Sends all, as much at a time as there is, and gives the pieces. */
function sendAll(queue: SendQueue): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  queue.flush((bytes) => {
    pieces.push(bytes.slice());
    return bytes.length;
  });
  return pieces;
}

for (const [count, size] of [[100_000, 1], [20_000, 40], [5000, 400], [1000, 8000], [100, 65_536]] as const) {
  void test(`send queue: ${count} writes of ${size} bytes leave in pieces of up to 256 KiB`, async () => {
    const queue = new SendQueue();
    const promises = new Set<Promise<void>>();
    const written = new Uint8Array(count * size).map((_, i) => i * 31 + (i >> 8));
    for (let i = 0; i < count; i++) promises.add(queue.push(written.subarray(i * size, (i + 1) * size)));
    assertEquals(queue.size, count * size);
    const pieces = sendAll(queue);
    // One less than fits may be left over in each.
    const least = Math.ceil(count * size / (262_144 - size));
    assert(pieces.length <= least && promises.size <= least, `${pieces.length} pieces, ${promises.size} promises`);
    assertEquals(Buffer.compare(Buffer.concat(pieces), written), 0);
    assertEquals([queue.size, queue.empty], [0, true]);
    await Promise.all(promises);
  });
}

void test("send queue: a write that waits alone, and a large one, are sent as they are", () => {
  const queue = new SendQueue();
  const [alone, large] = [new Uint8Array(10), new Uint8Array(65_537)];
  void queue.push(alone);
  assertEquals(queue.head() === alone, true);
  queue.took(10);
  void queue.push(large);
  void queue.push(alone);
  assertEquals(queue.head() === large, true);
});

void test("send queue: what is written while a piece is being sent waits for the next; the promises resolve in order", async () => {
  const queue = new SendQueue();
  const done: string[] = [];
  const push = (name: string) => void queue.push(new TextEncoder().encode(name)).then(() => done.push(name));
  push("a");
  const first = queue.head();
  push("b");
  push("c");
  assertEquals([first.length, queue.size], [1, 3]);
  queue.took(1);
  await Promise.resolve();
  assertEquals(done, ["a"]);
  assertEquals(new TextDecoder().decode(queue.head()), "bc");
  queue.took(1);
  await Promise.resolve();
  // Taken in part.
  assertEquals([done, queue.size, new TextDecoder().decode(queue.head())], [["a"], 1, "c"]);
  push("d");
  queue.took(1);
  queue.took(queue.head().length);
  await queue.drained();
  assertEquals(done, ["a", "b", "c", "d"]);
});

void test("send queue: bytes may be changed once their promise has resolved", async () => {
  const queue = new SendQueue();
  const bytes = new Uint8Array(100).fill(1);
  void queue.push(new Uint8Array(1));
  const written = queue.push(bytes);
  const [piece] = sendAll(queue);
  await written;
  bytes.fill(2);
  assertEquals(piece!.slice(1).every((byte) => byte === 1), true);
});

void test("send queue: its failure rejects all that waits, once each, and tells nobody else", async () => {
  const queue = new SendQueue();
  const error = new SocketError("ECONNRESET");
  const writes = [1, 40, 70_000, 1].map((size) => queue.push(new Uint8Array(size)));
  queue.head();
  queue.fail(error);
  for (const write of writes) assertEquals(await assertRejects(() => write, SocketError), error);
  // What was under way comes to its end later.
  queue.took(41);
  assertEquals([queue.empty, queue.size], [true, 70_042]);
});
