import { type Address, formatAddress, isUnnamed } from "./address.ts";
import { printable } from "./printable.ts";

/** Where a {@linkcode SocketError} comes from. */
export interface SocketErrorOptions {
  /** The system call that failed, such as `"listen"` or `"read"`, where it is known. */
  syscall?: string;
  /** The address that the call was about: the one to bind, or the peer's. */
  address?: Address;
  /** The runtime's own error. */
  cause?: unknown;
}

/** What the codes mean, in the words of errno(3), so that a message reads the same on every runtime. */
const MEANINGS: Record<string, string> = {
  EACCES: "permission denied",
  EADDRINUSE: "address already in use",
  EADDRNOTAVAIL: "cannot assign requested address",
  EAFNOSUPPORT: "address family not supported by the socket",
  EAGAIN: "the peer doesn't take what it was sent",
  ECONNABORTED: "closed on this side",
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset by peer",
  EMFILE: "too many open files in this process",
  EMSGSIZE: "message too long",
  ENFILE: "too many open files in the system",
  ENODATA: "the peer ended the stream early",
  ENOENT: "no such file or directory",
  ENOTFOUND: "host name not found",
  EPROTO: "TLS failed",
  EPROTOTYPE: "the other socket is of another type",
  EPIPE: "broken pipe: the sending side is closed, or the peer is gone",
  ETIMEDOUT: "timed out",
};

/**
 * An error of a socket: the same class with the same POSIX `code` on every runtime.
 *
 * @example
 * ```ts
 * import { SocketError } from "@sockets/server";
 *
 * const error = new SocketError("EADDRINUSE", {
 *   syscall: "listen",
 *   address: { transport: "tcp", hostname: "127.0.0.1", port: 80 },
 * });
 * console.log(error.message); // listen EADDRINUSE: address already in use, tcp://127.0.0.1:80
 * ```
 */
export class SocketError extends Error {
  /** `"SocketError"`, or the name of a derived class. */
  override readonly name: string = "SocketError";
  /** The POSIX code, such as `"EADDRINUSE"` or `"ECONNRESET"`; `"ENOTFOUND"` for a host name that has no address. */
  readonly code: string;
  /** The system call that failed, where it is known. */
  readonly syscall: string | undefined;
  /** The address that the call was about, where there is one. */
  readonly address: Address | undefined;

  /**
   * Makes the error; its message is composed of what is given.
   *
   * @param code The POSIX code.
   * @param options Where the error comes from.
   * @param detail What to say in place of the code's usual meaning.
   */
  constructor(code: string, options: SocketErrorOptions = {}, detail?: string) {
    const { syscall, address, cause } = options;
    // A detail may quote the peer: a name, a certificate, what the runtime has to say of them.
    const what = printable(detail ?? MEANINGS[code] ?? (cause instanceof Error ? cause.message : "socket error"));
    super(
      `${syscall === undefined ? "" : syscall + " "}${code}: ${what}${
        address === undefined || isUnnamed(address) ? "" : ", " + formatAddress(address)
      }`,
      cause === undefined ? undefined : { cause },
    );
    this.code = code;
    this.syscall = syscall;
    this.address = address;
  }
}

/**
 * The peer ended the stream before all that was asked for had arrived; `partial` holds what did.
 *
 * Named after its model, `asyncio.IncompleteReadError`. Its `code` is `"ENODATA"`.
 */
export class IncompleteReadError extends SocketError {
  /** The name of the class. */
  override readonly name = "IncompleteReadError";
  /** The peer's address, where the stream is a connection's. */
  override readonly address: Address | undefined;
  /** The bytes that arrived before the end of the stream. */
  readonly partial: Uint8Array;

  /**
   * Made by the reader.
   *
   * @param partial The bytes that arrived before the end of the stream.
   * @param wanted What the reader was waiting for.
   * @param address The peer's address, where the stream is a connection's; the message does not name it.
   */
  constructor(partial: Uint8Array, wanted: string, address?: Address) {
    super("ENODATA", { syscall: "read" }, `the stream ended after ${partial.length} bytes, before ${wanted}`);
    this.address = address;
    this.partial = partial;
  }
}

/**
 * A peer sent more than the reader was willing to buffer; what it sent stays in the reader's buffer.
 *
 * Named after its model, `asyncio.LimitOverrunError`. Its `code` is `"EMSGSIZE"`.
 */
export class LimitOverrunError extends SocketError {
  /** The name of the class. */
  override readonly name = "LimitOverrunError";
  /** The peer's address, where the stream is a connection's. */
  override readonly address: Address | undefined;
  /** The limit that was exceeded, in bytes. */
  readonly limit: number;

  /**
   * Made by the reader.
   *
   * @param limit The limit that was exceeded, in bytes.
   * @param wanted What the reader was waiting for.
   * @param address The peer's address, where the stream is a connection's; the message does not name it.
   */
  constructor(limit: number, wanted: string, address?: Address) {
    super("EMSGSIZE", { syscall: "read" }, `no ${wanted} within the limit of ${limit} bytes`);
    this.address = address;
    this.limit = limit;
  }
}

/** Something that this runtime, version or operating system can't do; the message says what would make it work. */
export class UnsupportedError extends Error {
  /** The name of the class. */
  override readonly name = "UnsupportedError";
}

/**
 * Thrown by a handler to end the server rather than its own request alone.
 *
 * As in Python, whose `SystemExit` passes through `socketserver` unhandled: the request is shut down, `handleError` is not
 * called, and `serveForever()` rejects with this error for the program to act on.
 *
 * @example
 * ```ts
 * import { BaseRequestHandler, SystemExit } from "@sockets/server";
 *
 * class QuitHandler extends BaseRequestHandler {
 *   override handle(): void {
 *     throw new SystemExit(3);
 *   }
 * }
 * ```
 */
export class SystemExit extends Error {
  /** The name of the class. */
  override readonly name = "SystemExit";
  /** The exit status that the handler asks for. */
  readonly exitCode: number;

  /**
   * Makes the error for a handler to throw.
   *
   * @param exitCode The exit status to ask for, 0 by default.
   */
  constructor(exitCode = 0) {
    super(`a handler asked the program to exit with status ${exitCode}`);
    this.exitCode = exitCode;
  }
}
