/** Who stands between a client and a server with TLS, as anybody on the line can: sends what neither has sent. */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

/** A relay of one connection. */
export interface Middle {
  /** Where the client is to connect. */
  readonly port: number;
  /** Sends the server what the client hasn't sent. */
  toServer(bytes: Uint8Array): void;
  /** Sends the client what the server hasn't sent. */
  toClient(bytes: Uint8Array): void;
  /** Ends the connection to the server, in the client's name. */
  endToServer(): void;
  /** What is made of the bytes from the client, and of those from the server, before they go on. */
  fromClient: (bytes: Uint8Array) => Uint8Array;
  fromServer: (bytes: Uint8Array) => Uint8Array;
  /** Resolves when the server has ended or reset its side; from then on the client is cut off too. */
  readonly serverGone: Promise<void>;
  /** Resolves when the client has. */
  readonly clientGone: Promise<void>;
}

/** Relays one connection to a port while `use` runs. */
export async function withMiddle(port: number, use: (middle: Middle) => Promise<void>): Promise<void> {
  const serverGone = Promise.withResolvers<void>();
  const clientGone = Promise.withResolvers<void>();
  const same = (bytes: Uint8Array) => bytes;
  let client: Socket | null = null;
  let server: Socket | null = null;
  const listener = createServer({ allowHalfOpen: true }, (socket) => {
    client = socket;
    const upstream = server = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    const relay = (from: Socket, to: Socket, change: (bytes: Uint8Array) => Uint8Array): void => {
      from.on("data", (bytes: Uint8Array) => to.write(change(bytes)) || from.pause());
      to.on("drain", () => from.resume());
    };
    relay(socket, upstream, (bytes) => middle.fromClient(bytes));
    relay(upstream, socket, (bytes) => middle.fromServer(bytes));
    for (const [from, to, gone] of [[socket, upstream, clientGone], [upstream, socket, serverGone]] as const) {
      const over = (): void => {
        gone.resolve();
        to.end();
      };
      from.on("error", over).on("end", over).on("close", over);
    }
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const middle: Middle = {
    port: (listener.address() as { port: number }).port,
    toServer: (bytes) => void server!.write(bytes),
    toClient: (bytes) => void client!.write(bytes),
    endToServer: () => void server!.end(),
    fromClient: same,
    fromServer: same,
    serverGone: serverGone.promise,
    clientGone: clientGone.promise,
  };
  try {
    await use(middle);
  } finally {
    (client as Socket | null)?.destroy();
    (server as Socket | null)?.destroy();
    listener.close();
  }
}
