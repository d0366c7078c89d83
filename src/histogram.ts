/** The values of one bucket of a {@linkcode Histogram}: those that are below `below` and in no bucket before it. */
export interface HistogramBucket {
  /** The bound that its values are below. */
  readonly below: number;
  /** How many values it holds. */
  readonly count: number;
}

/** Buckets in each power of two: a value is known to an eighth, so a percentile is at most 12.5 % too high. */
const PER_OCTAVE = 8;
/** A microsecond, when values are milliseconds: all below are in the first bucket. 41 octaves above it are 68 years. */
const LEAST = 2 ** -10;
const OCTAVES = 41;

// A floating-point number is its own logarithm: its exponent and the first three bits of its fraction are the bucket's number.
const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);
const SHIFT = 20;
float[0] = LEAST;
const FIRST = bits[0]! >>> SHIFT;
const LAST = PER_OCTAVE * OCTAVES;

/**
 * Counts values in buckets that grow with the values, so that it is as exact for microseconds as for hours: a percentile is never too
 * low and at most an eighth too high. Recording a value is one addition.
 *
 * @example
 * ```ts
 * import { Histogram } from "@sockets/server";
 *
 * const times = new Histogram();
 * for (const ms of [1, 2, 3, 50]) times.record(ms);
 * console.log(times.count, times.mean, times.percentile(50)); // 4 14 2.25
 * ```
 */
export class Histogram {
  #counts = new Float64Array(LAST + 1);
  #count = 0;
  #sum = 0;

  /** How many values were recorded. */
  get count(): number {
    return this.#count;
  }

  /** Their sum. */
  get sum(): number {
    return this.#sum;
  }

  /** Their mean; 0 when there are none. */
  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  /** The buckets that hold something, the lowest first. */
  get buckets(): HistogramBucket[] {
    const buckets: HistogramBucket[] = [];
    this.#counts.forEach((count, i) => {
      if (count > 0) buckets.push({ below: boundOf(i), count });
    });
    return buckets;
  }

  /**
   * Records a value.
   *
   * @param value The value; one below 0 counts as 0.
   * @param times How often: 1 by default.
   */
  record(value: number, times = 1): void {
    this.#count += times;
    if (value > 0) this.#sum += value * times;
    float[0] = value;
    const bucket = value > 0 ? (bits[0]! >>> SHIFT) - FIRST + 1 : 0;
    this.#counts[bucket < 0 ? 0 : bucket > LAST ? LAST : bucket]! += times;
  }

  /**
   * What so many percent of the values are below.
   *
   * @param percent From 0 to 100.
   * @returns The bound of the bucket that the value is in; 0 when there are none.
   * @throws {RangeError} When `percent` is no number from 0 to 100.
   */
  percentile(percent: number): number {
    if (!(percent >= 0 && percent <= 100)) throw new RangeError(`percent must be a number from 0 to 100, got ${String(percent)}`);
    const rank = Math.max(1, Math.ceil(this.#count * percent / 100));
    let seen = 0;
    for (const { below, count } of this.buckets) {
      seen += count;
      if (seen >= rank) return below;
    }
    return 0;
  }

  /**
   * Adds what another one holds.
   *
   * @param other The other one, or what `JSON.stringify` made of it.
   */
  add(other: { count: number; sum: number; buckets: readonly HistogramBucket[] }): void {
    this.#count += other.count;
    this.#sum += other.sum;
    for (const { below, count } of other.buckets) {
      // JSON makes `null` of an Infinity.
      float[0] = below ?? Infinity;
      this.#counts[Math.min(LAST, (bits[0]! >>> SHIFT) - FIRST)]! += count;
    }
  }

  /** A copy, which stays as it is. */
  copy(): Histogram {
    const copy = new Histogram();
    copy.#counts = this.#counts.slice();
    copy.#count = this.#count;
    copy.#sum = this.#sum;
    return copy;
  }

  /** What `JSON.stringify` writes. */
  toJSON(): { count: number; sum: number; buckets: HistogramBucket[] } {
    const { count, sum, buckets } = this;
    return { count, sum, buckets };
  }
}

/** What the values of a bucket are below. */
function boundOf(bucket: number): number {
  if (bucket === LAST) return Infinity;
  bits[0] = (FIRST + bucket) << SHIFT;
  return float[0]!;
}
