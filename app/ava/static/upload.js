"use strict";
// Sends files in parts, three at once. What is there already the server says, so a file that was cut off goes on where it was.
const AT_ONCE = 3;
const TRIES = 6;
const base = location.pathname.replace(/\/page$/, "");
const list = document.getElementById("list");
const drop = document.getElementById("drop");
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const mib = (bytes) => `${(bytes / 1048576).toFixed(bytes < 10485760 ? 1 : 0)} MiB`;
const keyOf = (file) => `upload ${base} ${file.name} ${file.size} ${file.lastModified}`;

// On a host the login page's cookie is enough; elsewhere the API may be at another path, and this page asks for the password itself.
let token = sessionStorage.getItem(`token ${base}`) || "";
const bearer = () => (token ? { Authorization: `Bearer ${token}` } : {});
let waitingForLogin = null;

function logIn() {
  const form = document.getElementById("login");
  form.hidden = false;
  document.getElementById("password").focus();
  waitingForLogin = waitingForLogin || new Promise((done) => {
    form.onsubmit = async (event) => {
      event.preventDefault();
      const answer = await fetch(`${base.replace(/\/uploads$/, "")}/auth/api/login`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ password: document.getElementById("password").value }),
      });
      const told = await answer.json().catch(() => ({}));
      if (!answer.ok) {
        document.getElementById("refused").textContent = told.detail || told.message || "That did not work.";
        return;
      }
      token = told.session_token;
      sessionStorage.setItem(`token ${base}`, token);
      document.getElementById("refused").textContent = "";
      form.hidden = true;
      waitingForLogin = null;
      done();
    };
  });
  return waitingForLogin;
}

async function ask(path, options = {}) {
  const again = () => fetch(base + path, { ...options, headers: { ...options.headers, ...bearer() } });
  let answer = await again();
  while (answer.status === 401) {
    await logIn();
    answer = await again();
  }
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const error = new Error(told.detail || told.message || `The server answered ${answer.status}.`);
    error.final = answer.status < 500 && answer.status !== 429;
    throw error;
  }
  return told;
}

async function begin(file) {
  const known = localStorage.getItem(keyOf(file));
  if (known) {
    try {
      const there = await ask(`/${known}`);
      if (there.state === "open") return there;
    } catch (error) {
      if (!error.final) throw error;
    }
  }
  const made = await ask("", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ filename: file.name, size_bytes: file.size }),
  });
  localStorage.setItem(keyOf(file), made.id);
  return made;
}

// Parts for a bucket go there directly. Where the browser may not or cannot reach it, they go through the server.
let bucketAnswers = true;

function sendPart(upload, part, file, progress) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    const direct = bucketAnswers && part.url;
    request.open("PUT", direct || `${base}/${upload.id}/parts/${part.number}`);
    if (!direct && token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.upload.onprogress = (event) => progress(part.number, event.loaded);
    request.onload = () => {
      if (request.status < 300) return done();
      const error = new Error(`Part ${part.number}: the server answered ${request.status}.`);
      error.final = request.status === 413;
      return failed(error);
    };
    request.onerror = () => {
      if (direct) bucketAnswers = false;
      failed(new Error("The connection was cut."));
    };
    request.send(file.slice(part.offset, part.offset + part.size));
  });
}

async function sendAll(upload, file, row) {
  const there = new Map(upload.parts.map((part) => [part.number, part.received ? part.size : 0]));
  const show = (number, bytes) => {
    there.set(number, bytes);
    let sent = 0;
    for (const value of there.values()) sent += value;
    row.progress(Math.min(sent, file.size), file.size);
  };
  const waiting = upload.parts.filter((part) => !part.received);
  show(0, 0);
  const worker = async () => {
    while (waiting.length) {
      let part = waiting.shift();
      for (let attempt = 1; ; attempt += 1) {
        try {
          await sendPart(upload, part, file, show);
          show(part.number, part.size);
          break;
        } catch (error) {
          if (error.final || attempt >= TRIES) throw error;
          row.say(`${error.message} Trying again…`);
          await pause(2 ** attempt);
          // an address of the bucket is good for an hour only
          const again = await ask(`/${upload.id}`);
          part = again.parts.find((one) => one.number === part.number) || part;
          if (part.received) break;
        }
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

async function watch(upload, row) {
  row.say("Sent. The clips are being looked at…");
  for (;;) {
    const now = await ask(`/${upload.id}`);
    if (now.state === "ready") {
      const known = now.known.length ? `, ${now.known.length} were here already` : "";
      return row.end(`${now.clips.length} new ${now.clips.length === 1 ? "clip" : "clips"}${known}.`, "good");
    }
    if (now.state === "failed") return row.end(now.error, "bad");
    await pause(2);
  }
}

function makeRow(file) {
  document.getElementById("empty").hidden = true;
  const item = document.createElement("li");
  const name = document.createElement("b");
  const bar = document.createElement("progress");
  const text = document.createElement("div");
  name.textContent = file.name;
  bar.max = 1;
  bar.setAttribute("aria-label", `Progress of ${file.name}`);
  item.append(name, bar, text);
  list.prepend(item);
  return {
    progress(sent, all) {
      bar.value = all ? sent / all : 0;
      text.textContent = `${mib(sent)} of ${mib(all)}`;
    },
    say(words) { text.textContent = words; },
    end(words, kind, again) {
      text.textContent = words;
      text.className = kind;
      if (kind === "good") bar.value = 1;
      if (again) {
        const button = document.createElement("button");
        button.textContent = "Go on";
        button.onclick = () => { item.remove(); again(); };
        text.append(" ", button);
      }
    },
  };
}

async function send(file) {
  const row = makeRow(file);
  try {
    row.say("Beginning…");
    const upload = await begin(file);
    await sendAll(upload, file, row);
    await ask(`/${upload.id}/complete`, { method: "POST" });
    localStorage.removeItem(keyOf(file));
    await watch(upload, row);
  } catch (error) {
    row.end(error.message, "bad", () => send(file));
  }
}

async function sendOneByOne(files) {
  for (const file of files) await send(file);
}

document.getElementById("files").addEventListener("change", (event) => {
  sendOneByOne([...event.target.files]);
  event.target.value = "";
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") sendOneByOne([...event.dataTransfer.files]);
  });
}
