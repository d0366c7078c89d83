/**
 * A stand-in for the part of `@std/assert` that the tests use, with the same names and signatures, for where JSR can't be reached.
 *
 * @module
 */
import nodeAssert, { AssertionError } from "node:assert";

export { AssertionError };

// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error> = abstract new (...args: any[]) => E;

export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError({ message: msg || "expected a true value" });
}

export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  if (msg === undefined) nodeAssert.deepStrictEqual(actual, expected);
  else nodeAssert.deepStrictEqual(actual, expected, msg);
}

export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T {
  assert(Object.is(actual, expected), msg ?? `expected ${String(expected)}, got ${String(actual)}`);
}

export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  assert(actual > expected, msg ?? `expected ${actual} > ${expected}`);
}

export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  assert(actual < expected, msg ?? `expected ${actual} < ${expected}`);
}

export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  assert(expected.test(actual), msg ?? `expected ${JSON.stringify(actual)} to match ${expected}`);
}

export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  assert(actual.includes(expected), msg ?? `expected ${JSON.stringify(actual)} to include ${JSON.stringify(expected)}`);
}

export function assertInstanceOf<E extends Error>(actual: unknown, expected: ErrorClass<E>, msg?: string): asserts actual is E {
  assert(actual instanceof expected, msg ?? `expected an instance of ${expected.name}, got ${String(actual)}`);
}

export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorClass<E>,
  msgIncludes = "",
  msg?: string,
): E {
  try {
    fn();
  } catch (error) {
    return check(error, ErrorClass, msgIncludes, msg);
  }
  throw new AssertionError({ message: msg ?? `expected ${ErrorClass.name} to be thrown` });
}

export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorClass<E>,
  msgIncludes = "",
  msg?: string,
): Promise<E> {
  try {
    await fn();
  } catch (error) {
    return check(error, ErrorClass, msgIncludes, msg);
  }
  throw new AssertionError({ message: msg ?? `expected a rejection with ${ErrorClass.name}` });
}

function check<E extends Error>(error: unknown, ErrorClass: ErrorClass<E>, msgIncludes: string, msg?: string): E {
  assertInstanceOf(error, ErrorClass, msg);
  assertStringIncludes(error.message, msgIncludes, msg);
  return error;
}
