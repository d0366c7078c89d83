import { type Address, formatAddress, toAddress } from "./address.ts";
import { DatagramSocket } from "./datagram_socket.ts";
import { checkOptions } from "./options.ts";
import { type BindOptions, getRuntime, type Runtime } from "./runtime.ts";
import { checkBindOptions } from "./socket_options.ts";

/** Options of {@linkcode bind}. Their names and meanings are those of the fields of `UDPServer` and `UnixDatagramServer`. */
export interface DatagramSocketOptions extends Partial<Omit<BindOptions, "address">> {
  /** The sockets to use: the running runtime's by default. */
  runtime?: Runtime;
}

/**
 * Binds a datagram socket: a client's end, or a server without a framework.
 *
 * @param address Where to send from and receive at: `udp://0.0.0.0:0` for a client that the system gives a port, `unixgram:` for one
 * that it gives a name (an abstract one on Linux, else a temporary file), or an address of your own.
 * @param options Options of the socket; `maxPacketSize` is 65,535 bytes by default. One that is `undefined` is left out.
 * @returns The socket. All errors are the promise's rejection.
 * @throws {TypeError} When the address is none, an option is unknown, or of the wrong type.
 * @throws {RangeError} When the port or an option is out of its range.
 * @throws {SocketError} When the address can't be bound: `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES`, `ENOTFOUND`.
 * @throws {UnsupportedError} When the runtime has no such socket.
 *
 * @example Tell systemd that the service is ready
 * ```ts
 * import { bind, getRuntime } from "@sockets/server";
 *
 * const path = process.env.NOTIFY_SOCKET?.replace(/^@/, "\0");
 * if (path !== undefined && getRuntime().capabilities.unixDatagram === true) {
 *   await using socket = await bind("unixgram:");
 *   await socket.send("READY=1", { transport: "unixgram", path });
 * }
 * ```
 */
export async function bind(address: string | Address, options: DatagramSocketOptions = {}): Promise<DatagramSocket> {
  const from: Address = address === "unixgram:" ? { transport: "unixgram", path: "" } : toAddress(address);
  if (from.transport !== "udp" && from.transport !== "unixgram") {
    throw new TypeError(`bind() takes a udp or unixgram address, got ${formatAddress(from)}`);
  }
  const defaults: BindOptions = {
    address: from,
    addressFamily: null,
    requestQueueSize: 1024,
    allowReuseAddress: from.transport === "unixgram",
    allowReusePort: false,
    ipv6Only: false,
    mode: 0o600,
    maxPacketSize: 65_535,
    broadcast: false,
    receiveBufferSize: null,
    sendBufferSize: null,
  };
  const { address: _, ...names } = defaults;
  checkOptions("bind()", options, ["runtime", ...Object.keys(names)]);
  const { runtime = getRuntime(), ...given } = options;
  const chosen = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const bindOptions: BindOptions = { ...defaults, ...chosen };
  checkBindOptions(runtime, bindOptions);
  return new DatagramSocket(await runtime.bind(bindOptions));
}
