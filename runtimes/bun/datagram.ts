import { type Address, inetAddress, ipFamily } from "../../src/address.ts";
import type { BindOptions, RawDatagram, RawDatagramSocket } from "../../src/runtime.ts";
import { bindUdp as bindNodeUdp } from "../node/datagram.ts";
import { ArrivalQueue } from "../../src/arrival_queue.ts";
import { handled, rejected } from "../../src/promises.ts";
import { PendingSends } from "../shared/pending_sends.ts";
import {
  closedError,
  isEarlier,
  lookUp,
  lookUpPeer,
  mapped,
  resolveHost,
  SEND_ATTEMPTS,
  sendError,
  toSocketError,
} from "../shared/translate.ts";

/** The part of Bun's API that is used here, so that the types of Bun are not needed to compile this. */
interface BunApi {
  udpSocket(options: {
    hostname: string;
    port: number;
    /** Not in Bun's types; `node:dgram` in Bun is made with it. */
    flags: number;
    binaryType: "uint8array";
    socket: {
      data(socket: BunUdpSocket, data: Uint8Array, port: number, address: string, flags: { truncated: boolean }): void;
      drain(socket: BunUdpSocket): void;
      /** Its types say that the socket comes first. */
      error(error: Error): void;
    };
  }): Promise<BunUdpSocket>;
}

interface BunUdpSocket {
  readonly address: { readonly address: string; readonly port: number };
  send(bytes: Uint8Array, port: number, address: string): boolean;
  setBroadcast(on: boolean): boolean;
  addMembership(group: string, interfaceAddress?: string): boolean;
  dropMembership(group: string, interfaceAddress?: string): boolean;
  close(): void;
  unref(): void;
  ref(): void;
}

// Bun's own names of these are LIBUS_LISTEN_REUSE_PORT and so on.
const REUSE_PORT = 4;
const IPV6_ONLY = 8;
const REUSE_ADDRESS = 16;
const REUSE_OR_FAIL = 32;

/** UDP by way of `Bun.udpSocket`, Unix datagrams by way of `bun:ffi`. */
export async function bindDatagram(options: BindOptions): Promise<RawDatagramSocket> {
  if (options.address.transport === "udp") return await bindUdp(options);
  // Foreign functions are loaded where they are needed.
  const { bindUnixDatagram } = await import("./unix_datagram.ts");
  return await bindUnixDatagram(options);
}

/** UDP by way of `Bun.udpSocket`. */
export async function bindUdp(options: BindOptions): Promise<RawDatagramSocket> {
  // Bun's own socket can't set them.
  if (options.receiveBufferSize !== null || options.sendBufferSize !== null) return bindNodeUdp(options);
  const { udpSocket } = (globalThis as unknown as { Bun: BunApi }).Bun;
  const { address, maxPacketSize } = options;
  const family = options.addressFamily === "IPv6" ? 6 : options.addressFamily === "IPv4" ? 4 : 0;
  const name = (address as { hostname: string }).hostname;
  // Bun would look a name up by itself, but reports an unknown one as ENOENT.
  const hostname = ipFamily(name) === null
    ? await lookUp(address, name, family)
    : await resolveHost(address, options.addressFamily);
  const ipv6 = ipFamily(hostname) === "IPv6";
  const queue = new ArrivalQueue<RawDatagram>(options.requestQueueSize);
  let unsent: PromiseWithResolvers<void> | null = null;
  const sending = new PendingSends();
  let closed: Promise<void> | null = null;
  let socket: BunUdpSocket;
  try {
    socket = await udpSocket({
      hostname,
      port: (address as { port: number }).port,
      flags: REUSE_OR_FAIL | (options.allowReusePort ? REUSE_PORT : 0) | (options.ipv6Only ? IPV6_ONLY : 0) |
        (options.allowReuseAddress ? REUSE_ADDRESS : 0),
      binaryType: "uint8array",
      socket: {
        data(_socket, data, port, from, flags) {
          const long = data.length > maxPacketSize;
          queue.offer({
            data: long ? data.slice(0, maxPacketSize) : data,
            address: inetAddress("udp", from, port),
            truncated: long || flags.truncated,
          });
        },
        drain() {
          const waiting = unsent;
          unsent = null;
          waiting?.resolve();
        },
        // What ICMP says of an earlier send, or the echo of an error that send() has thrown already.
        error(cause) {
          if ((cause as { code?: string }).code !== "EMSGSIZE") queue.fail(toSocketError(cause, "recv", local));
        },
      },
    });
  } catch (cause) {
    throw toSocketError(cause, "bind", address);
  }
  const local = inetAddress("udp", socket.address.address, socket.address.port);
  if (options.broadcast) socket.setBroadcast(true);

  const send = (bytes: Uint8Array, to: Address, ip: string, attempts = SEND_ATTEMPTS): void | Promise<void> => {
    try {
      if (socket.send(bytes, (to as { port: number }).port, mapped(ip, ipv6))) return;
    } catch (cause) {
      if (isEarlier(cause) && attempts > 1) return send(bytes, to, ip, attempts - 1);
      if (ipFamily(ip) === null) {
        return lookUpPeer(to, ipv6).then((ip) => closed === null ? send(bytes, to, ip) : rejected(closedError(to)));
      }
      return rejected(sendError(cause, to, ip, ipv6));
    }
    return sending.add((unsent ??= Promise.withResolvers()).promise.then(() => send(bytes, to, ip)));
  };
  return {
    address: local,
    get dropped() {
      return queue.overflowed;
    },
    get queued() {
      return queue.length;
    },
    receive: (as) => queue.take(as),
    interrupt: () => queue.interrupt(),
    send(bytes, to) {
      if (closed !== null) return rejected(closedError(to));
      const sent = send(bytes, to, (to as { hostname: string }).hostname);
      return sent === undefined ? undefined : handled(sent);
    },
    // deno-lint-ignore require-await
    async setMembership(join, group, interfaceAddress) {
      const change = join ? socket.addMembership : socket.dropMembership;
      try {
        change.call(socket, group, ...(interfaceAddress === undefined ? [] : [interfaceAddress]));
      } catch (cause) {
        throw toSocketError(cause, "setsockopt", local, "EINVAL");
      }
    },
    close() {
      if (closed !== null) return closed;
      closed = sending.over().then(() => {
        socket.close();
        unsent?.reject(closedError(local));
      });
      queue.close();
      return closed;
    },
    unref: () => socket.unref(),
    ref: () => socket.ref(),
  };
}
