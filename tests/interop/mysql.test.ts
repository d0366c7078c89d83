/** TLS behind a request that the client doesn't wait for the answer to, with a client that does that: MariaDB's. */
import { assert, assertEquals } from "@std/assert";
import {
  AsyncTCPServer,
  type RequestHandlerClass,
  type SocketError,
  type StartTlsOptions,
  type TCPServer,
} from "@sockets/server";
import { until } from "../conformance/serving.ts";
import { type Middle, withMiddle } from "../conformance/tls_middle.ts";
import { local, plainServing } from "../conformance/tls_serving.ts";
import { FEW, STREAM } from "../conformance/worker_serving.ts";
import MySqlHandler from "./mysql_handler.ts";
import { run, testWith } from "./programs.ts";

const ROUNDS = 40;
/** The size of a client's request for TLS. */
const SSL_REQUEST = 36;
const LOGGED_IN = "ERROR 1045 (28000): joe over TLSv1.3\n";

/** What a client says that logs in. */
async function logIn(port: number): Promise<string> {
  const login = ["--ssl", "--skip-ssl-verify-server-cert", "--connect-timeout=10", "-ujoe"];
  return (await run("mariadb", ["--no-defaults", "-h127.0.0.1", `-P${port}`, ...login, "-e", "select 1"])).stderr;
}

/** The same by way of somebody who sends the request and the beginning of the handshake as one. */
async function logInAtOnce(port: number): Promise<string> {
  let said = "";
  const joined = (middle: Middle) => {
    let held: Uint8Array = new Uint8Array(0);
    middle.fromClient = (bytes) => {
      held = new Uint8Array([...held, ...bytes]);
      if (held.length <= SSL_REQUEST) return new Uint8Array(0);
      middle.fromClient = (more) => more;
      return held;
    };
  };
  await withMiddle(port, async (middle) => {
    joined(middle);
    said = await logIn(middle.port);
  });
  return said;
}

const modes = {
  async: { Server: AsyncTCPServer, Handler: MySqlHandler, options: {} },
  threading: { Server: STREAM.threading.tcp, Handler: new URL("./mysql_handler.ts", import.meta.url), options: FEW.threading },
  forking: { Server: STREAM.forking.tcp, Handler: new URL("./mysql_handler.ts", import.meta.url), options: FEW.forking },
};
for (const [mode, { Server, Handler, options }] of Object.entries(modes)) {
  const serve = (how: StartTlsOptions | undefined, use: Parameters<typeof plainServing>[1]) =>
    plainServing(
      Handler as unknown as RequestHandlerClass,
      use,
      Server as unknown as typeof TCPServer,
      { data: { tls: local(), how }, ...options as object },
    );

  testWith(
    "mariadb",
    `mysql: mariadb: TLS begins right behind the request for it, ${ROUNDS} times of ${ROUNDS}, ${mode}`,
    () =>
      serve({ readAhead: "handshake" }, async (server) => {
        for (let round = 0; round < ROUNDS; round += 4) {
          const said = [logIn(server.port), logInAtOnce(server.port), logIn(server.port), logInAtOnce(server.port)];
          assertEquals(await Promise.all(said), new Array(4).fill(LOGGED_IN));
        }
        await until(() => server.activeRequests.size === 0);
        assertEquals(server.errors, []);
      }),
  );

  testWith(
    "mariadb",
    `mysql: mariadb: without the option a handshake that was read ahead is refused, ${mode}`,
    () =>
      serve(undefined, async (server) => {
        const said = await logInAtOnce(server.port);
        assert(/^ERROR 20\d\d /.test(said), said);
        await until(() => server.errors.length === 1);
        const { code, message } = server.errors[0] as SocketError;
        assertEquals(code, "EPROTO");
        assert(/bytes were received in the clear after the request for TLS/.test(message), message);
      }),
  );
}
