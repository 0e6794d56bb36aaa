"""A language model on a small HTTP server that speaks OpenAI's protocol: litellm asks it for models `openai/…`."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = '{"explanation": "the word w1", "1": true, "2": false, "3": true, "4": false, "5": true}'


def completion(message, **more):
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage, **more}


ANSWER = 200, completion({"role": "assistant", "content": TEXT})


class Server:
    """Answers with `script(number of the request, its body)`, (status, body[, headers]); keeps the bodies of requests."""

    def __init__(self, script):
        self.script, self.bodies, server = script, [], self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                status, reply, *headers = server.script(len(server.bodies), body)
                content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": len(content), **dict(*headers)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(content)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self):
        self.http.shutdown()
        self.http.server_close()
