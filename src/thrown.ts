/** What was thrown may be anything, a proxy that throws when it is asked among it. No function here throws. */
import { ignore } from "./promises.ts";

/** A property of a value; `undefined` when it can't be read. */
export function propertyOf(value: unknown, name: string): unknown {
  try {
    return (value as Record<string, unknown>)[name];
  } catch {
    return undefined;
  }
}

/** Whether a value is an error, one of another realm included. */
export function isError(value: unknown): boolean {
  try {
    return value instanceof Error || Object.prototype.toString.call(value) === "[object Error]";
  } catch {
    return false;
  }
}

/** Whether a value is an instance of a class. */
export function isInstance<T>(value: unknown, Class: abstract new (...args: never[]) => T): value is T {
  try {
    return value instanceof Class;
  } catch {
    return false;
  }
}

/** A value as text, as well as that can be had. */
export function describe(value: unknown): string {
  for (const attempt of [String, (value: unknown) => Object.prototype.toString.call(value)]) {
    try {
      return attempt(value);
    } catch {
      // The next one asks less of it.
    }
  }
  return `${typeof value === "function" ? "a function" : "an object"} that can't be described`;
}

/**
 * What was thrown, for code that asks for its class, name, message and code: the value itself, or an error that describes it when one
 * of these can't be read. A promise that was thrown counts as handled, as its rejection would end the program.
 */
export function toInspectable(thrown: unknown): unknown {
  if ((typeof thrown !== "object" || thrown === null) && typeof thrown !== "function") return thrown;
  try {
    if (thrown instanceof Promise) thrown.catch(ignore);
    const { name: _name, message: _message, code: _code } = thrown as { name?: unknown; message?: unknown; code?: unknown };
    return thrown;
  } catch {
    return new Error(`a handler threw ${describe(thrown)}`);
  }
}
