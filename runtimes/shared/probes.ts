/** Ways to find out whether somebody has the file of a Unix socket open, by `node:net`, which all runtimes have. */
import { codeOf } from "./socket_path.ts";
import type { Probe } from "./stale_file.ts";

/** Connects. A server that listens there sees a connection that ends at once. */
export const probeByConnecting: Probe = (path) =>
  new Promise((resolve) => {
    const socket = process.getBuiltinModule("node:net").connect({ path });
    socket.on("connect", () => {
      socket.destroy();
      resolve(null);
    });
    socket.on("error", (error) => resolve(codeOf(error) ?? "EIO"));
  });

/**
 * Connects with a socket that has a peer already. Linux looks for the listener first (ECONNREFUSED when there is none) and only then at the
 * socket (EISCONN): a server that listens there sees nothing. For runtimes that connect the same descriptor again, as libuv does.
 */
export const probeUnnoticed: Probe = (path) => {
  // Other systems look at the socket first.
  if (process.platform !== "linux") return probeByConnecting(path);
  const { connect, createServer } = process.getBuiltinModule("node:net");
  return new Promise((resolve) => {
    const own = `\0sockets-${crypto.randomUUID()}`;
    const listener = createServer((peer) => {
      peer.on("error", () => {});
      if (over) peer.destroy();
      else socket.once("close", () => peer.destroy());
    });
    let over = false;
    const end = (code: string | null) => {
      over = true;
      socket.destroy();
      listener.close();
      resolve(code);
    };
    let socket: ReturnType<typeof connect>;
    listener.on("error", () => void probeByConnecting(path).then(resolve));
    listener.listen({ path: own, exclusive: true }, () => {
      socket = connect({ path: own }, () => {
        socket.removeAllListeners("connect");
        socket.connect({ path });
        // It can't connect twice. Should it have, somebody is there.
        socket.once("connect", () => end(null));
      });
      socket.on("error", (error) => end(codeOf(error) ?? "EIO"));
    });
  });
};
