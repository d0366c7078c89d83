import type * as dgram from "node:dgram";
import { type Address, inetAddress, ipFamily } from "../../src/address.ts";
import type { BindOptions, RawDatagram, RawDatagramSocket } from "../../src/runtime.ts";
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

/** UDP by way of `node:dgram`, Unix datagrams by way of `node:ffi`. */
export async function bindDatagram(options: BindOptions): Promise<RawDatagramSocket> {
  if (options.address.transport === "udp") return await bindUdp(options, directSend);
  // Foreign functions are loaded where they are needed.
  const { bindUnixDatagram } = await import("./unix_datagram.ts");
  return await bindUnixDatagram(options);
}

/** `true`, or what would make Unix datagrams work. */
export function unixDatagramSupport(): true | string {
  if (process.platform === "win32") return "Windows has none";
  return process.getBuiltinModule("node:module").isBuiltin("node:ffi") ||
    "Node has none of its own and needs node:ffi to reach the system's, which Node 26 brings; Deno and Bun have them too";
}

/** UDP by way of `node:dgram`: all that Node has, and what Bun and Deno fall back on for what their own sockets lack. */
export async function bindUdp(
  options: BindOptions,
  makeDirectSend?: typeof directSend,
  explainSend: typeof sendError = sendError,
): Promise<RawDatagramSocket> {
  const { address, addressFamily, ipv6Only, maxPacketSize, requestQueueSize, receiveBufferSize, sendBufferSize } = options;
  const name = await resolveHost(address, addressFamily);
  // `node:dgram` would look for an IPv4 address alone.
  const host = ipFamily(name) === null ? await lookUp(address, name, 0) : name;
  const ipv6 = ipFamily(host) === "IPv6";
  const socket = process.getBuiltinModule("node:dgram").createSocket({
    type: ipv6 ? "udp6" : "udp4",
    ipv6Only,
    reuseAddr: options.allowReuseAddress,
    reusePort: options.allowReusePort,
    ...(receiveBufferSize === null ? {} : { recvBufferSize: receiveBufferSize }),
    ...(sendBufferSize === null ? {} : { sendBufferSize }),
    // Names have been looked up when a datagram gets here.
    lookup: (hostname, _family, callback) => callback(null, mapped(hostname, ipv6), ipv6 ? 6 : 4),
  } as dgram.SocketOptions);
  const queue = new ArrivalQueue<RawDatagram>(requestQueueSize);
  await new Promise<void>((resolve, reject) => {
    socket.once("error", (cause) => {
      socket.close();
      reject(toSocketError(cause, "bind", address));
    });
    try {
      socket.bind({ address: host, port: "port" in address ? address.port : 0 }, resolve);
    } catch (cause) {
      // As Deno does for what it doesn't permit.
      socket.close();
      reject(toSocketError(cause, "bind", address));
    }
  });
  const bound = socket.address();
  const local = inetAddress("udp", bound.address, bound.port);
  socket.removeAllListeners("error");
  socket.on("error", (cause) => queue.fail(toSocketError(cause, "recv", local)));
  if (options.broadcast) socket.setBroadcast(true);
  socket.on("message", (message, { address, port }) => {
    const truncated = message.length > maxPacketSize;
    // `node:dgram` in Deno gives each the 64 KiB that it was received into.
    const isPart = message.length < message.buffer.byteLength;
    queue.offer({
      // A plain one; a copy when it is a part, or the whole would be kept in memory.
      data: truncated || isPart
        ? new Uint8Array(message.subarray(0, maxPacketSize))
        : new Uint8Array(message.buffer, message.byteOffset, message.length),
      address: inetAddress("udp", address, port),
      truncated,
    });
  });
  const direct = makeDirectSend?.(socket);
  const sending = new PendingSends();
  let closed: Promise<void> | null = null;
  const attempt = (bytes: Uint8Array, port: number, ip: string, attempts: number) =>
    new Promise<void>((resolve, reject) => {
      socket.send(bytes, port, ip, (error) => {
        if (error === null) resolve();
        else if (isEarlier(error) && attempts > 1) resolve(attempt(bytes, port, ip, attempts - 1));
        else reject(error);
      });
    });
  const send = (bytes: Uint8Array, to: Address, ip: string): void | Promise<void> => {
    const { port } = to as { port: number };
    const sent = direct === undefined ? attempt(bytes, port, ip, SEND_ATTEMPTS) : direct(bytes, port, mapped(ip, ipv6));
    if (sent === undefined) return;
    return sending.add(sent.catch((cause) => {
      // Closing the socket was not to wait for it any longer.
      throw (cause as { code?: unknown }).code === "ECANCELED" ? closedError(to) : explainSend(cause, to, ip, ipv6);
    }));
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
      const { hostname } = to as { hostname: string };
      if (ipFamily(hostname) !== null) return send(bytes, to, hostname);
      return handled(lookUpPeer(to, ipv6).then((ip) => closed === null ? send(bytes, to, ip) : rejected(closedError(to))));
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
      closed = sending.over().then(() => new Promise<void>((resolve) => socket.close(resolve)));
      queue.close();
      return closed;
    },
    unref: () => void socket.unref(),
    ref: () => void socket.ref(),
  };
}

/** What is beneath a `dgram.Socket`: its handle, in C++. */
interface UdpHandle {
  /** Bytes sent and one more; 0 when it will be sent later, and then `request.oncomplete` is called; a negative error number. */
  send(request: SendWrap, list: Uint8Array[], count: number, port: number, ip: string, hasCallback: boolean): number;
}
interface SendWrap {
  oncomplete?: (error: number) => void;
}

/**
 * Sends by the handle beneath the socket. By `socket.send` even a datagram that the kernel has taken at once is reported in a later turn,
 * by a callback that costs as much as the rest. Nothing where the handle isn't as Node's own code has it: nothing of it is public.
 */
function directSend(socket: dgram.Socket): ((bytes: Uint8Array, port: number, ip: string) => void | Promise<void>) | undefined {
  const { binding } = process as { binding?: (name: string) => { SendWrap?: new () => SendWrap } };
  const state = Object.getOwnPropertySymbols(socket).find(({ description }) => description === "state symbol");
  const handle = state === undefined ? undefined : (socket as unknown as Record<symbol, { handle?: UdpHandle }>)[state]?.handle;
  let SendWrap: (new () => SendWrap) | undefined;
  try {
    SendWrap = binding?.("udp_wrap").SendWrap;
  } catch {
    // Not allowed, as under Node's permission model.
  }
  if (SendWrap === undefined || typeof handle?.send !== "function") return;
  const Request = SendWrap;
  // What the kernel takes at once leaves the request unused, so one does for many datagrams.
  let request = new Request();
  return (bytes, port, ip) => {
    const result = handle.send(request, [bytes], 1, port, ip, true);
    if (result > 0) return;
    if (result < 0) return Promise.reject(systemError(result));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    request.oncomplete = (error) => error < 0 ? reject(systemError(error)) : resolve();
    request = new Request();
    return promise;
  };
}

function systemError(number: number): Error {
  const code = process.getBuiltinModule("node:util").getSystemErrorName(number);
  return Object.assign(new Error(`send ${code}`), { code, syscall: "send" });
}
