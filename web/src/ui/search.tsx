/** The field that a list is searched by: `/` goes there, Escape empties it and then leaves it. */
import type { RefObject } from "preact";
import { Icon } from "./icon";

export function Search({
  field,
  what,
  value,
  onChange,
  onEnter,
}: {
  field: RefObject<HTMLInputElement | null>;
  /** What is searched, in small letters. */
  what: string;
  value: string;
  onChange: (value: string) => void;
  /** Enter; whether it led anywhere. */
  onEnter?: () => boolean;
}) {
  return (
    <label class="search">
      <Icon name="search" />
      <input
        ref={field}
        type="search"
        placeholder={`Search ${what}`}
        aria-label={`Search ${what}`}
        value={value}
        spellcheck={false}
        autocomplete="off"
        onInput={(event) => onChange(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") value ? onChange("") : event.currentTarget.blur();
          else if (event.key !== "Enter" || !onEnter?.()) return;
          event.preventDefault();
        }}
      />
      <kbd aria-hidden="true">/</kbd>
    </label>
  );
}
