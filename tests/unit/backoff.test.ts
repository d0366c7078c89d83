import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { Backoff } from "../../src/backoff.ts";

test("pauses double up to the longest", () => {
  const backoff = new Backoff(100, 30_000);
  const pauses = Array.from({ length: 11 }, () => backoff.next(0));
  assertEquals(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
});

test("what has lasted as long as the longest pause starts over", () => {
  const backoff = new Backoff(100, 1000);
  assertEquals([backoff.next(50), backoff.next(999), backoff.next(1000), backoff.next(0)], [100, 200, 100, 200]);
});

test("pauses of 0 stay 0", () => {
  const backoff = new Backoff(0, 0);
  assertEquals([backoff.next(0), backoff.next(5)], [0, 0]);
});
