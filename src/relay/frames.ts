/** What the frames between a server and its workers mean, and how what they carry is written. */
import type { Address } from "../address.ts";
import type { EndReason } from "../end_reason.ts";
import type { TlsInfo } from "../tls.ts";
import { fromPlainError, type PlainError, toPlainError } from "./plain_error.ts";

/** The types of frames. Most belong to a request, whose number is their channel. */
export const FRAME = {
  /** To the worker: a connection to handle; {@linkcode Opened} as JSON. */
  OPEN: 1,
  /** To the worker: a datagram to handle; the length of a {@linkcode Opened} as JSON, that, and the data. */
  DATAGRAM: 2,
  /** Both ways: bytes of the connection. */
  DATA: 3,
  /** Both ways: the end of the stream. */
  END: 4,
  /** Both ways: so many more bytes may be sent; a word. */
  CREDIT: 5,
  /** To the worker: the connection is gone; an error as JSON with the reason, or nothing when it ended in order. */
  LOST: 6,
  /** To the server: closes the connection. */
  CLOSE: 7,
  /** To the server: aborts it; the reason as JSON when the worker has one. */
  ABORT: 8,
  /** To the server: TCP_NODELAY and SO_KEEPALIVE, as JSON. */
  OPTION: 9,
  /** To the server: the handler is done; an error as JSON, or nothing. */
  DONE: 10,
  /** To the server: a datagram to send; its address as JSON as in DATAGRAM. The channel is a number of its own. */
  SEND: 11,
  /** To the worker: it was sent; an error as JSON, or nothing. */
  SENT: 12,
  /** To a worker that runs a server: a method to call; a {@linkcode Call} as JSON. The channel is a number of its own. */
  CALL: 13,
  /** To the caller: what the method returned, as JSON. */
  RETURNED: 14,
  /** To the caller: what the method threw; an error as JSON. */
  THREW: 15,
  /**
   * To the server: asks for an answer behind all that has arrived for the connection by now. To the worker: the answer.
   */
  ARRIVALS: 16,
  /** To the worker: asks whether its event loop turns. The channel means nothing. */
  PING: 17,
  /** To the server: it does. */
  PONG: 18,
  /** To whoever supervises a worker that runs a server: what the server has counted so far, as JSON; unasked, now and then. */
  STATS: 19,
} as const;

/** Bytes of a connection that may be under way to the worker. */
export const WINDOW = 131_072;
/**
 * The same for those that come back. More than the other way, and more than one operation sends: a worker takes in what one peer sends no
 * faster than what it has for another gets out.
 */
export const REPLY_WINDOW = 524_288;
/** What a frame with bytes of a connection costs beside them, in a queue or as an object. It counts as under way too. */
const FRAME_BYTES = 256;

/** What a frame with so many bytes of a connection takes of the window. */
export function windowCost(size: number): number {
  return size + FRAME_BYTES;
}
/** Credit is given back in pieces of at least this many bytes. */
export const CREDIT_STEP = 32_768;

/** What a worker is told of a request. */
export interface Opened {
  clientAddress: Address | null;
  localAddress?: Address;
  remoteAddress?: Address;
  tls?: TlsInfo | null;
  truncated?: boolean;
  /** The load balancer's header, for the worker to read again, as JSON has no bytes. */
  proxy?: number[];
}

/** A method of a server that runs in a worker. Milliseconds without end are `null`, as JSON has no `Infinity`. */
export type Call =
  | { method: "activate"; address: Address }
  | { method: "serveForever" }
  | { method: "shutdown"; drain?: number | null }
  | { method: "serverClose"; shutdownTimeout: number | null; drains: boolean }
  | { method: "stats" };

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A value as JSON in UTF-8. */
export function encodeJson(value: unknown): Uint8Array {
  return encoder.encode(JSON.stringify(value));
}

/** Reads what {@linkcode encodeJson} wrote. */
export function decodeJson<T>(bytes: Uint8Array): T {
  return JSON.parse(decoder.decode(bytes)) as T;
}

/** A value as JSON with data behind it. */
export function encodeWithData(value: unknown, data: Uint8Array): Uint8Array {
  const json = encodeJson(value);
  const all = new Uint8Array(4 + json.length + data.length);
  new DataView(all.buffer).setUint32(0, json.length);
  all.set(json, 4);
  all.set(data, 4 + json.length);
  return all;
}

/** Reads what {@linkcode encodeWithData} wrote. */
export function decodeWithData<T>(bytes: Uint8Array): [T, Uint8Array] {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  return [decodeJson(bytes.subarray(4, 4 + length)), bytes.slice(4 + length)];
}

/** A number as a frame's bytes. */
export function encodeCredit(bytes: number): Uint8Array {
  return new Uint8Array(new Uint32Array([bytes]).buffer);
}

/** Reads what {@linkcode encodeCredit} wrote. */
export function decodeCredit(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
}

/**
 * Whatever was thrown as JSON, of bounded size. Structured cloning would lose an error's class and its code, and refuses some values.
 *
 * @param error What was thrown.
 * @param reason Why the connection that it is about has ended.
 */
export function encodeError(error: unknown, reason: EndReason | null = null): Uint8Array {
  return encodeJson({ ...toPlainError(error), reason });
}

/** The reason that {@linkcode encodeError} was given. */
export function decodeReason(bytes: Uint8Array): EndReason | null {
  return decodeJson<{ reason?: EndReason | null }>(bytes).reason ?? null;
}

/** The error again, of the same class where that is one of this package's or of the language's. */
export function decodeError(bytes: Uint8Array): Error {
  return fromPlainError(decodeJson<PlainError>(bytes));
}
