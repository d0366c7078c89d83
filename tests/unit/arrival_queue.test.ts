/** How connections and datagrams get from an adapter to whoever takes them. */
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { ArrivalQueue, HANDLED } from "../../src/arrival_queue.ts";

test("arrival queue: what comes while another is handled is handled next, and the wait goes on", async () => {
  const queue = new ArrivalQueue<number>(10);
  const seen: (number | null)[] = [];
  const waiting = queue.take((item) => {
    seen.push(item);
    // As when a handler connects to its own server.
    if (item === 1) assertEquals([queue.offer(2), queue.offer(3)], [false, false]);
    return item === null ? "interrupted" : HANDLED;
  });
  queue.offer(1);
  assertEquals([seen, queue.length, queue.waiting], [[1, 2, 3], 0, true]);
  queue.offer(4);
  queue.interrupt();
  assertEquals(await waiting, "interrupted");
  assertEquals(seen, [1, 2, 3, 4, null]);
});

test("arrival queue: a full one counts what it turns away, and a closed one gets rid of what waits", () => {
  const discarded: number[] = [];
  const queue = new ArrivalQueue<number>(1, (item) => void discarded.push(item));
  assertEquals([queue.offer(1), queue.offer(2), queue.overflowed, queue.full], [false, false, 1, true]);
  assertEquals(queue.take((item) => item), 1);
  queue.offer(3);
  queue.close();
  queue.offer(4);
  assertEquals([discarded, queue.overflowed], [[2, 3, 4], 1]);
  assertEquals(queue.take((item) => item), null);
});
