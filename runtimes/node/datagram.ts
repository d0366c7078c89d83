import type * as dgram from "node:dgram";
import { type Address, inetAddress, ipFamily } from "../../src/address.ts";
import type { BindOptions, RawDatagram, RawDatagramSocket } from "../../src/runtime.ts";
import { ArrivalQueue } from "../shared/arrival_queue.ts";
import { handled } from "../../src/promises.ts";
import { probeStream } from "../shared/socket_file.ts";
import { bindUnixDatagram } from "../shared/unix_datagram.ts";
import { openSystemSocket } from "./unix_datagram.ts";
import { closedError, mapped, resolveHost, toSocketError } from "../shared/translate.ts";

/** UDP by way of `node:dgram`, Unix datagrams by way of `node:ffi`. */
export function bindDatagram(options: BindOptions): Promise<RawDatagramSocket> {
  if (options.address.transport === "udp") return bindUdp(options);
  return bindUnixDatagram(options, openSystemSocket, probeStream);
}

/** UDP by way of `node:dgram`: all that Node has, and what Bun and Deno fall back on for what their own sockets lack. */
export async function bindUdp(options: BindOptions): Promise<RawDatagramSocket> {
  const { address, addressFamily, ipv6Only, maxPacketSize, requestQueueSize, receiveBufferSize, sendBufferSize } = options;
  const host = await resolveHost(address, addressFamily);
  const ipv6 = ipFamily(host) === "IPv6" || (ipFamily(host) === null && addressFamily === "IPv6");
  const socket = process.getBuiltinModule("node:dgram").createSocket({
    type: ipv6 ? "udp6" : "udp4",
    ipv6Only,
    reuseAddr: options.allowReuseAddress,
    reusePort: options.allowReusePort,
    ...(receiveBufferSize === null ? {} : { recvBufferSize: receiveBufferSize }),
    ...(sendBufferSize === null ? {} : { sendBufferSize }),
    lookup(hostname, family, callback) {
      // The replies, which go to IP addresses, need nobody to look anything up.
      if (ipFamily(hostname) !== null) callback(null, mapped(hostname, ipv6), ipv6 ? 6 : 4);
      else process.getBuiltinModule("node:dns").lookup(hostname, family, callback as () => void);
    },
  } as dgram.SocketOptions);
  const queue = new ArrivalQueue<RawDatagram>(requestQueueSize);
  await new Promise<void>((resolve, reject) => {
    socket.once("error", (cause) => {
      socket.close();
      reject(toSocketError(cause, "bind", address));
    });
    socket.bind({ address: host, port: "port" in address ? address.port : 0 }, resolve);
  });
  const bound = socket.address();
  const local = inetAddress("udp", bound.address, bound.port);
  socket.removeAllListeners("error");
  socket.on("error", (cause) => queue.fail(toSocketError(cause, "recv", local)));
  if (options.broadcast) socket.setBroadcast(true);
  socket.on("message", (message, { address, port }) => {
    const truncated = message.length > maxPacketSize;
    queue.offer({
      // A plain one; a copy when it is cut, or the whole would be kept in memory.
      data: truncated
        ? new Uint8Array(message.subarray(0, maxPacketSize))
        : new Uint8Array(message.buffer, message.byteOffset, message.length),
      address: inetAddress("udp", address, port),
      truncated,
    });
  });
  let closed: Promise<void> | null = null;
  return {
    address: local,
    get dropped() {
      return queue.overflowed;
    },
    receive: () => queue.take(),
    interrupt: () => queue.interrupt(),
    send(bytes, to) {
      const { hostname, port } = to as Address & { hostname: string; port: number };
      return handled(
        new Promise<void>((resolve, reject) => {
          if (closed !== null) return reject(closedError(to));
          socket.send(bytes, port, hostname, (error) => error === null ? resolve() : reject(toSocketError(error, "send", to)));
        }),
      );
    },
    // deno-lint-ignore require-await
    async setMembership(join, group, interfaceAddress) {
      try {
        if (join) socket.addMembership(group, interfaceAddress);
        else socket.dropMembership(group, interfaceAddress);
      } catch (cause) {
        throw toSocketError(cause, "setsockopt", local, "EINVAL");
      }
    },
    close() {
      if (closed !== null) return closed;
      closed = new Promise((resolve) => socket.close(resolve));
      queue.close();
      return closed;
    },
  };
}
