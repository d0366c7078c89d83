import { type Address, inetAddress, ipFamily } from "../../src/address.ts";
import { SocketError } from "../../src/errors.ts";
import type { BindOptions, RawDatagram, RawDatagramSocket } from "../../src/runtime.ts";
import { bindUdp as bindNodeUdp } from "../node/datagram.ts";
import { ArrivalQueue } from "../../src/arrival_queue.ts";
import { ignore, rejected } from "../../src/promises.ts";
import { PendingSends } from "../shared/pending_sends.ts";
import { closedError, lookUpPeer, mapped, refused, resolveHost, sendError } from "../shared/translate.ts";
import { explain } from "./errors.ts";

/** The part of Deno's API that is used here; missing without --unstable-net. */
type ListenDatagram = (options: { transport: "udp"; hostname: string; port: number; reuseAddress: boolean }) => DenoDatagramConn;

interface DenoPermissions {
  permissions: { querySync(permission: { name: "net"; host: string }): { state: string } };
}

interface DenoAddr {
  readonly transport: "udp";
  readonly hostname: string;
  readonly port: number;
}

interface DenoDatagramConn {
  readonly addr: DenoAddr;
  receive(buffer: Uint8Array): Promise<[Uint8Array, DenoAddr]>;
  send(bytes: Uint8Array, to: DenoAddr): Promise<number>;
  joinMulticastV4(group: string, interfaceAddress: string): Promise<{ leave(): Promise<void> }>;
  joinMulticastV6(group: string, interfaceIndex: number): Promise<{ leave(): Promise<void> }>;
  close(): void;
  /** These two are not in Deno's types. */
  unref(): void;
  ref(): void;
}

/** What comes of sending to an address of the other family. */
const WRONG_FAMILY = new Set(["EAFNOSUPPORT", "ENETUNREACH"]);
/** Bytes of a buffer that datagrams share, at least. */
const SLAB = 65_536;

export const listenDatagram = (globalThis as unknown as { Deno?: { listenDatagram?: ListenDatagram } }).Deno?.listenDatagram;

/** UDP by way of `Deno.listenDatagram`, Unix datagrams by way of `Deno.dlopen`. */
export async function bindDatagram(options: BindOptions): Promise<RawDatagramSocket> {
  if (options.address.transport === "udp") return await bindUdp(options);
  // Foreign functions are loaded where they are needed.
  const { bindUnixDatagram } = await import("./unix_datagram.ts");
  return await bindUnixDatagram(options);
}

/** UDP; by way of `node:dgram` where Deno's own socket is missing. */
async function bindUdp(options: BindOptions): Promise<RawDatagramSocket> {
  const { address, receiveBufferSize, sendBufferSize } = options;
  if (listenDatagram === undefined) return bindNodeUdp(options, undefined, explainSend);
  const hostname = await resolveHost(address, options.addressFamily);
  // Foreign functions are loaded where they are needed.
  const sized = receiveBufferSize === null && sendBufferSize === null ? null : await import("./buffer_sizes.ts");
  try {
    // Deno sets SO_REUSEPORT with SO_REUSEADDR.
    const reuseAddress = options.allowReuseAddress || options.allowReusePort;
    const { port } = address as { port: number };
    const open = () => listenDatagram({ transport: "udp", hostname, port, reuseAddress });
    return new DenoDatagramSocket(sized === null ? open() : sized.withBufferSizes(options, open), options);
  } catch (cause) {
    throw explain(cause, "bind", address);
  }
}

/** `node:dgram` in Deno says UNKNOWN of what is not permitted. */
const explainSend: typeof sendError = (cause, to, ip, ipv6) => {
  const { permissions } = (globalThis as unknown as { Deno: DenoPermissions }).Deno;
  const host = ipFamily(ip) === "IPv6" ? `[${ip}]` : ip;
  const { state } = permissions.querySync({ name: "net", host: `${host}:${(to as { port: number }).port}` });
  if (state === "granted") return sendError(cause, to, ip, ipv6);
  return refused(`--allow-net=${host}, or --allow-net for all hosts`, "send", to, cause);
};

class DenoDatagramSocket implements RawDatagramSocket {
  readonly address: Address;
  /** The kernel keeps what nobody has asked for yet. */
  readonly dropped = 0;
  readonly queued = 0;
  #conn: DenoDatagramConn;
  #maxPacketSize: number;
  #ipv6: boolean;
  /** Holds one that came after its receiver had been interrupted. */
  #queue = new ArrivalQueue<RawDatagram>(1);
  /** What is received goes here, one after the other: a buffer for each datagram would cost as much as all the rest. */
  #slab = new Uint8Array(0);
  #used = 0;
  #receiving: Promise<void> | null = null;
  /** Sends under way, and whether somebody waits to receive. */
  #sending = new PendingSends();
  #wanted = false;
  /** The promise of `close()`; `null` while the socket is open. */
  #closed: Promise<void> | null = null;
  #groups = new Map<string, { leave(): Promise<void> }>();

  // Made once: they are needed for every datagram.
  #received = (received: [Uint8Array, DenoAddr]): void => {
    const bytes = received[0];
    const { hostname, port } = received[1];
    this.#receiving = null;
    this.#used += bytes.length;
    const truncated = bytes.length > this.#maxPacketSize;
    this.#queue.offer({
      data: truncated ? bytes.subarray(0, this.#maxPacketSize) : bytes,
      address: inetAddress("udp", hostname, port),
      truncated,
    });
    if (this.#queue.waiting) this.#receive();
  };
  #sent = (): void => {
    this.#sending.end();
    if (this.#wanted) this.#receive();
  };
  #failed = (cause: unknown): void => {
    this.#receiving = null;
    if (this.#closed === null) this.#queue.fail(explain(cause, "recv", this.address));
  };

  constructor(conn: DenoDatagramConn, { maxPacketSize }: BindOptions) {
    this.#conn = conn;
    const { hostname, port } = conn.addr;
    this.address = inetAddress("udp", hostname, port);
    this.#maxPacketSize = maxPacketSize;
    this.#ipv6 = ipFamily(hostname) === "IPv6";
  }

  receive<T>(as: (datagram: RawDatagram | null) => T): T | Promise<T> {
    const datagram = this.#queue.take(as);
    if (datagram instanceof Promise) this.#receive();
    return datagram;
  }

  interrupt(): void {
    this.#queue.interrupt();
  }

  send(bytes: Uint8Array, to: Address): void | Promise<void> {
    return this.#send(bytes, to, (to as DenoAddr & Address).hostname);
  }

  #send(bytes: Uint8Array, to: Address, hostname: string): Promise<void> {
    if (this.#closed !== null) return rejected(closedError(to));
    const { port } = to as DenoAddr & Address;
    this.#sending.begin();
    const sending = this.#conn.send(bytes, { transport: "udp", hostname: mapped(hostname, this.#ipv6), port });
    const sent = sending.then(this.#sent, (cause) => {
      this.#sent();
      // Only now: on the way that everything goes there is no promise to spare.
      sent.catch(ignore);
      const error = sendError(explain(cause, "send", to), to, hostname, this.#ipv6);
      // Deno takes the first address that the resolver has, of whatever family.
      if (ipFamily(hostname) !== null || !WRONG_FAMILY.has(error.code)) throw error;
      return lookUpPeer(to, this.#ipv6).then((ip) => this.#send(bytes, to, ip));
    });
    return sent;
  }

  async setMembership(join: boolean, group: string, interfaceAddress: string | undefined): Promise<void> {
    const key = `${group} ${interfaceAddress ?? ""}`;
    try {
      if (!join) {
        const membership = this.#groups.get(key);
        if (membership === undefined) throw new SocketError("EADDRNOTAVAIL", { syscall: "setsockopt", address: this.address });
        this.#groups.delete(key);
        await membership.leave();
      } else if (this.#ipv6) {
        this.#groups.set(key, await this.#conn.joinMulticastV6(group, 0));
      } else {
        this.#groups.set(key, await this.#conn.joinMulticastV4(group, interfaceAddress ?? "0.0.0.0"));
      }
    } catch (cause) {
      throw explain(cause, "setsockopt", this.address, "EINVAL");
    }
  }

  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#queue.close();
    await this.#sending.over();
    this.#conn.close();
    // A receive under way holds the port for a moment longer.
    await this.#receiving;
  }

  unref(): void {
    this.#conn.unref();
  }

  ref(): void {
    this.#conn.ref();
  }

  /** Receives one, after what is being sent: to begin both at once makes a datagram dearer by a tenth. */
  #receive(): void {
    this.#wanted = this.#sending.any;
    if (this.#wanted || this.#receiving !== null || this.#closed !== null) return;
    // One byte more than is kept shows that there was more.
    const room = this.#maxPacketSize + 1;
    if (this.#slab.length < this.#used + room) {
      this.#slab = new Uint8Array(Math.max(SLAB, 4 * room));
      this.#used = 0;
    }
    this.#receiving = this.#conn.receive(this.#slab.subarray(this.#used, this.#used + room)).then(this.#received, this.#failed);
  }
}
