// Asks for the token: once for a tab.
import { useEffect, useRef, useState } from "preact/hooks";
import { keep } from "./asking";

export function Token({ refused, given }: { refused: boolean; given: () => void }) {
  const [text, setText] = useState("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  const enter = (event: Event) => {
    event.preventDefault();
    if (!text.trim()) return;
    keep(text.trim());
    given();
  };
  return (
    <form class="token" onSubmit={enter}>
      <h1>barograph</h1>
      {refused ? (
        <p class="wrong" role="alert">
          The sidecar does not know this token.
        </p>
      ) : null}
      <label for="token">Token</label>
      <input ref={field} id="token" type="password" autocomplete="current-password" spellcheck={false} value={text} onInput={(event) => setText(event.currentTarget.value)} aria-describedby="token-hint" />
      <button type="submit">Look</button>
      <p id="token-hint" class="soft">
        One with the scope <code>read</code>; to acknowledge and mute, <code>admin</code>. The administrator's lies in <code>barograph-data/token</code>. It stays in this tab.
      </p>
    </form>
  );
}
