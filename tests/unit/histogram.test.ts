/** How exact a histogram is. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Histogram } from "@sockets/server";
import { test } from "node:test";
import { generator } from "./generator.ts";

test("histogram: every value is in the one bucket whose bounds are around it, an eighth apart at most", () => {
  for (let value = 2 ** -10; value < 2 ** 30; value *= 1.01) {
    const histogram = new Histogram();
    histogram.record(value);
    const [{ below, count }] = histogram.buckets as [{ below: number; count: number }];
    assertEquals(count, 1);
    assert(value < below && below <= value * 1.1251, `${value} is below ${below}`);
  }
});

test("histogram: powers of two begin a bucket; what is no ordinary number is counted too", () => {
  const bounds = (...values: number[]) => {
    const histogram = new Histogram();
    for (const value of values) histogram.record(value);
    assertEquals(histogram.count, values.length);
    return histogram.buckets.map(({ below, count }) => [below, count]);
  };
  assertEquals(bounds(1, 1.124, 1.125, 2), [[1.125, 2], [1.25, 1], [2.25, 1]]);
  assertEquals(bounds(0, -5, NaN, 2 ** -11, 1e-300), [[2 ** -10, 5]]);
  assertEquals(bounds(2 ** 31, Infinity, 1e300), [[Infinity, 3]]);
});

test("histogram: percentiles are never too low and at most an eighth too high", () => {
  const random = generator(3);
  for (let round = 0; round < 50; round++) {
    const histogram = new Histogram();
    const values = Array.from({ length: 1 + Math.floor(random() * 1000) }, () => 2 ** (random() * 30 - 9));
    for (const value of values) histogram.record(value);
    values.sort((a, b) => a - b);
    for (const percent of [0, 1, 50, 90, 99, 99.9, 100]) {
      const exact = values[Math.max(1, Math.ceil(values.length * percent / 100)) - 1]!;
      const ours = histogram.percentile(percent);
      assert(ours > exact && ours <= exact * 1.1251, `${percent}%: ${ours} for ${exact}`);
    }
    assertEquals(histogram.buckets.reduce((sum, { count }) => sum + count, 0), values.length);
    const sum = values.reduce((sum, value) => sum + value);
    assert(Math.abs(histogram.sum - sum) < sum * 1e-9);
    assert(Math.abs(histogram.mean - sum / values.length) < 1e-6 * sum);
  }
});

test("histogram: an empty one, a copy, and what is written of it", () => {
  const histogram = new Histogram();
  assertEquals([histogram.count, histogram.sum, histogram.mean, histogram.percentile(99), histogram.buckets], [0, 0, 0, 0, []]);
  histogram.record(3);
  const copy = histogram.copy();
  histogram.record(30);
  assertEquals([copy.count, histogram.count], [1, 2]);
  assertEquals(JSON.stringify(copy), '{"count":1,"sum":3,"buckets":[{"below":3.25,"count":1}]}');
  for (const percent of [-1, 101, NaN]) assertThrows(() => copy.percentile(percent), RangeError, "percent must be");
});

test("a histogram adds what another holds, also by way of JSON", () => {
  const sum = new Histogram();
  for (const values of [[0, 0.5, 3, 1e9], [3, Infinity]]) {
    const one = new Histogram();
    for (const value of values) one.record(value);
    sum.add(JSON.parse(JSON.stringify(one)));
  }
  const all = new Histogram();
  for (const value of [0, 0.5, 3, 1e9, 3, Infinity]) all.record(value);
  assertEquals(sum.count, all.count);
  assertEquals(sum.buckets, all.buckets);
});
