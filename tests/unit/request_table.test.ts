/** The table of unfinished requests: what it says of each, and what that costs. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { Entry, RequestTable } from "../../src/request_table.ts";
import { FakeClock } from "./fake_clock.ts";

/** Waits for the system's clock to show another millisecond. */
function tick(): number {
  const now = Date.now();
  while (Date.now() === now);
  return Date.now();
}

test("request table: an entry takes the time within 50 ms, whoever looks at it later", () => {
  const clock = new FakeClock();
  const table = new RequestTable<string>(clock);
  const entry = new Entry("request", null, -1);
  table.add(entry);
  const before = Date.now();
  clock.pass(50);
  const after = tick();
  assert(entry.since >= before && entry.since < after, `${entry.since} is not from ${before} to ${after}`);
});

test("request table: entries that are gone by then don't read the clock, and one call is for all", () => {
  const clock = new FakeClock();
  const table = new RequestTable<number>(clock);
  const now = Date.now;
  let read = 0;
  Date.now = () => ++read;
  try {
    for (let i = 0; i < 100; i++) {
      const entry = new Entry(i, null, -1);
      table.add(entry);
      table.remove(entry);
    }
    assertEquals([clock.calls.size, read], [1, 0]);
    table.add(new Entry(100, null, -1));
    clock.pass(50);
    assertEquals([clock.calls.size, read], [0, 1]);
  } finally {
    Date.now = now;
  }
});

test("request table: entries are found after others were removed, in whatever order", () => {
  const table = new RequestTable<string>(new FakeClock());
  const entries = ["a", "b", "c", "d"].map((name) => new Entry(name, null, -1));
  for (const entry of entries) table.add(entry);
  assertEquals(table.get("c"), entries[2]);
  table.remove(entries[0]!);
  table.remove(entries[3]!);
  assertEquals([...table.keys()].sort(), ["b", "c"]);
  assertEquals([table.has("a"), table.get("b"), table.get("c")], [false, entries[1], entries[2]]);
});
