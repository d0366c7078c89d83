/** What a worker's `data` may be, and what is refused before one is started. */
import { assertMatch, assertThrows } from "@std/assert";
import { test } from "node:test";
import { checkWorkerData } from "../../src/worker_data.ts";

const cyclic: Record<string, unknown> = { name: "x" };
cyclic.list = [{ self: cyclic }];
class Custom {}

test("worker data: what JSON carries goes to a process", () => {
  const twice = { a: 1 };
  for (
    const data of [null, undefined, "text", 0, -1.5, true, [], {}, { a: [1, "b", { c: null, d: undefined }] }, [twice, twice], {
      at: new Date(),
      where: new URL("http://localhost"),
    }, Object.assign(Object.create(null), { a: 1 })]
  ) checkWorkerData("process", data);
});

for (
  const [what, data, message] of [
    ["a function", { log: () => {} }, /^data\.log is a function, which can't be passed to a process/],
    [
      "shared memory",
      { lock: new SharedArrayBuffer(8) },
      /^data\.lock is a SharedArrayBuffer, .*threads take more, and share memory/,
    ],
    ["a Map, deep inside", [0, { names: new Map() }], /^data\[1\]\.names is a Map, /],
    ["bytes", new Uint8Array(3), /^data is a Uint8Array, /],
    ["an instance of a class", new Custom(), /^data is a Custom, /],
    ["a bigint", 1n, /^data is a bigint, /],
    ["a symbol", [Symbol("x")], /^data\[0\] is a symbol, /],
    ["Infinity", { limit: Infinity }, /^data\.limit is Infinity, /],
    ["NaN", NaN, /^data is NaN, /],
    ["what contains itself", cyclic, /^data\.list\[0\]\.self is a part of itself, /],
  ] as const
) {
  test(`worker data: ${what} is refused for a process`, () => {
    assertMatch(assertThrows(() => checkWorkerData("process", data), TypeError).message, message);
  });
}

test("worker data: what can be cloned goes to a thread, and shared memory stays shared", () => {
  for (const data of [null, cyclic, new Map([[1, new Set([2])]]), new SharedArrayBuffer(8), 1n, Infinity]) {
    checkWorkerData("thread", data);
  }
});

test("worker data: what can't be cloned is refused for a thread", () => {
  const error = assertThrows(() => checkWorkerData("thread", { log: () => {} }), TypeError);
  assertMatch(error.message, /^data can't be passed to a thread: /);
});
