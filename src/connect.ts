import { type Address, formatAddress, toAddress } from "./address.ts";
import { Connection } from "./connection.ts";
import { checkTimeout, Deadline } from "./deadline.ts";
import { SocketError } from "./errors.ts";
import { checkOptions, checkSignal } from "./options.ts";
import { ignore } from "./promises.ts";
import { getRuntime, type RawConnection, type Runtime } from "./runtime.ts";
import { checkPath } from "./socket_options.ts";
import { clientSettings, handshake, handshakeTimeout, type TlsConnectOptions, tlsContext } from "./tls.ts";

/** Options of {@linkcode connect}. */
export interface ConnectionOptions {
  /** The sockets to use: the running runtime's by default. */
  runtime?: Runtime;
  /** Sends small writes at once (TCP_NODELAY): `true` by default. */
  noDelay?: boolean;
  /** Secures the connection by TLS; `true` stands for `{}`. A `tls://` address does that by itself. */
  tls?: boolean | TlsConnectOptions;
  /**
   * Milliseconds that looking up the host name and connecting may take: 5000 by default, in which the first packet is sent three times.
   * 0 and `Infinity` leave it to the system, which gives up after two minutes on Linux. A TLS handshake has a time of its own,
   * `tls.handshakeTimeout`; a `timeout` that is given covers it as well.
   */
  timeout?: number;
  /** Gives up when it fires, also in the midst of a TLS handshake; none by default. It means nothing to the connection once that is there. */
  signal?: AbortSignal;
}

const OPTIONS = ["runtime", "noDelay", "tls", "timeout", "signal"];
/** Milliseconds that connecting may take unless it is told otherwise. */
const CONNECT_TIMEOUT_MS = 5000;

/**
 * Connects to a server: the client's end of the same {@linkcode Connection} that handlers have. A connect that is given up, because
 * of `timeout` or `signal`, leaves nothing behind.
 *
 * @param address The server's address: `tcp://host:port`, `tls://host:port` or `unix:/path`.
 * @param options Options of the connection; `timeout` is 5000 milliseconds by default.
 * @returns The connection. All errors are the promise's rejection.
 * @throws {TypeError} When the address is none, an option is unknown, or `signal` is no `AbortSignal`.
 * @throws {RangeError} When the port is no integer from 0 to 65535, or `timeout` no number of milliseconds.
 * @throws {SocketError} When nobody listens there (`ECONNREFUSED`; `ENOENT` when there is no such file), the host is unknown
 * (`ENOTFOUND`) or unreachable, or does not answer within `timeout` (`ETIMEDOUT`). With TLS, when the handshake fails: `EPROTO`, also when nobody vouches for the server, `ETIMEDOUT`, `ECONNRESET`.
 * @throws {unknown} The `reason` of `signal`, an `AbortError` unless the program has chosen another, when it fires.
 *
 * @example
 * ```ts
 * import { connect, serve } from "@sockets/server";
 *
 * const server = await serve("tcp://127.0.0.1:0", async (conn) => {
 *   await conn.write("hello\n");
 * });
 * const conn = await connect(server.serverAddress);
 * for await (const chunk of conn) console.log(new TextDecoder().decode(chunk));
 * await conn.close();
 * await server.serverClose();
 * ```
 */
export async function connect(address: string | Address, options: ConnectionOptions = {}): Promise<Connection> {
  const to = toAddress(address);
  if (to.transport !== "tcp" && to.transport !== "unix") {
    throw new TypeError(`connect() takes a tcp or unix address, got ${formatAddress(to)}; bind() sends datagrams`);
  }
  checkOptions("connect()", options, OPTIONS);
  const { runtime = getRuntime(), noDelay = true, timeout = CONNECT_TIMEOUT_MS, signal } = options;
  checkTimeout("timeout", timeout);
  checkSignal("connect()", signal);
  checkPath(runtime, to);
  const hostname = "hostname" in to ? to.hostname : null;
  const { tls = "hostname" in to && to.tls === true } = options;
  const secured = tls === true ? {} : tls;
  const settings = secured === false ? null : clientSettings(secured, hostname);
  signal?.throwIfAborted();
  const context = settings === null ? null : await tlsContext(runtime, settings);
  const begun = performance.now();
  const raw = await open(runtime, to, noDelay, timeout, signal);
  if (context === null) return new Connection(raw, null, null, hostname);
  const isBounded = options.timeout !== undefined && timeout !== 0;
  const left = isBounded ? Math.max(1, timeout - (performance.now() - begun)) : Infinity;
  const handshaking = handshake(context, raw, Math.min(left, handshakeTimeout(secured as TlsConnectOptions)));
  return new Connection(await unlessAborted(handshaking, raw, signal), null, null, hostname);
}

/** Connects within `timeout` milliseconds, unless `signal` fires before. */
async function open(
  runtime: Runtime,
  address: Address,
  noDelay: boolean,
  timeout: number,
  signal: AbortSignal | undefined,
): Promise<RawConnection> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const deadline = new Deadline();
  const givenUp = Promise.withResolvers<never>();
  const onAbort = (): void => giveUp(signal!.reason);
  let over = false;
  const giveUp = (reason: unknown): void => {
    over = true;
    givenUp.reject(reason);
    controller.abort(reason);
  };
  if (timeout !== 0 && timeout !== Infinity) {
    deadline.start(timeout, () => {
      giveUp(new SocketError("ETIMEDOUT", { syscall: "connect", address }, `no answer within ${timeout} ms`));
    });
  }
  signal?.addEventListener("abort", onAbort);
  const connecting = runtime.connect({ address, noDelay, signal: controller.signal });
  // A runtime that can't give up connects all the same, later.
  connecting.then((raw) => over && raw.abort(), ignore);
  try {
    return await Promise.race([connecting, givenUp.promise]);
  } finally {
    deadline.clear();
    signal?.removeEventListener("abort", onAbort);
  }
}

/** What `handshaking` resolves with; when `signal` fires before, the connection is aborted. */
async function unlessAborted(
  handshaking: Promise<RawConnection>,
  raw: RawConnection,
  signal: AbortSignal | undefined,
): Promise<RawConnection> {
  if (signal === undefined) return await handshaking;
  let secured: RawConnection | null = null;
  const onAbort = (): void => (secured ?? raw).abort();
  signal.addEventListener("abort", onAbort);
  try {
    if (signal.aborted) onAbort();
    secured = await handshaking;
    if (signal.aborted) secured.abort();
    signal.throwIfAborted();
    return secured;
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
