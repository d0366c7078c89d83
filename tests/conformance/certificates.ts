/** Certificates for tests, made by openssl when the first of them is asked for. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** A certificate and its key, as files. */
export interface Files {
  readonly cert: string;
  readonly key: string;
}

let folder: string | null = null;
const made = new Map<string, Files>();

/** Makes each of them once; the folder is removed at the end of the process. */
function once(name: string, make: (files: Files) => void): Files {
  if (folder === null) {
    const created = folder = mkdtempSync(join(tmpdir(), "sockets-tls-"));
    process.once("exit", () => rmSync(created, { recursive: true, force: true }));
  }
  let files = made.get(name);
  if (files === undefined) {
    const path = join(folder, name.replaceAll("*", "_"));
    made.set(name, files = { cert: `${path}.pem`, key: `${path}.key` });
    make(files);
  }
  return files;
}

const openssl = (...args: string[]) => void execFileSync("openssl", args, { stdio: ["ignore", "ignore", "pipe"] });
const EC = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/** An authority that vouches for others; `ca` by default. */
export function authority(name = "ca"): Files {
  return once(name, ({ cert, key }) => {
    openssl("req", "-x509", "-newkey", ...EC, "-nodes", "-keyout", key, "-out", cert, "-days", "30", "-subj", `/CN=${name}`);
  });
}

/** The certificate of a host, or of a client, that an authority vouches for. */
export function certificate(name: string, by: string = "ca", kind: "ec" | "rsa" = "ec"): Files {
  const ca = authority(by);
  return once(`${by}-${kind}-${name}`, ({ cert, key }) => {
    const request = `${cert}.csr`;
    const extensions = `${cert}.ext`;
    writeFileSync(extensions, `subjectAltName=DNS:${name}${name === "localhost" ? ",IP:127.0.0.1" : ""}\n`);
    const algorithm = kind === "ec" ? EC : ["rsa:2048"];
    openssl("req", "-newkey", ...algorithm, "-nodes", "-keyout", key, "-out", request, "-subj", `/O=Test/CN=${name}`);
    const signer = ["-CA", ca.cert, "-CAkey", ca.key, "-CAcreateserial", "-days", "30", "-extfile", extensions];
    openssl("x509", "-req", "-in", request, "-out", cert, ...signer);
  });
}

/** A client's certificate that expires at a moment, in whole seconds; to wait until then takes longer than to make it. */
export function expiring(name: string, at: Date, by: string = "ca"): Files {
  const ca = authority(by);
  const end = at.toISOString().replace(/[-:T]|\.\d+/g, "");
  return once(`${by}-${end}-${name}`, ({ cert, key }) => {
    const request = `${cert}.csr`;
    const config = `${cert}.cnf`;
    const database = `${cert}.index`;
    const made = dirname(cert);
    writeFileSync(database, "");
    writeFileSync(
      config,
      [
        ...["[ca]", "default_ca=this", "[this]", `database=${database}`, `new_certs_dir=${made}`, "rand_serial=yes"],
        ...["default_md=sha256", "policy=any", "unique_subject=no", "[any]", "commonName=supplied"],
        ...["[extensions]", `subjectAltName=DNS:${name}`],
      ].join("\n"),
    );
    openssl("req", "-newkey", ...EC, "-nodes", "-keyout", key, "-out", request, "-subj", `/CN=${name}`);
    const signer = ["-cert", ca.cert, "-keyfile", ca.key, "-extensions", "extensions", "-startdate", "20200101000000Z"];
    openssl("ca", "-batch", "-config", config, "-in", request, "-out", cert, "-notext", ...signer, "-enddate", end);
  });
}
