document.querySelectorAll(".gallery").forEach(gallery => {
  const body = gallery.querySelector("tbody"), buttons = gallery.querySelectorAll("button");
  buttons.forEach(button => button.addEventListener("click", () => {
    const value = row => Number(row.dataset.keys.split(" ")[button.dataset.key]);
    const order = (a, b) =>  // images without gain come last
      isNaN(value(a)) - isNaN(value(b)) || button.dataset.sign * (value(a) - value(b));
    [...body.rows].sort(order).forEach(row => body.append(row));
    buttons.forEach(other => other.setAttribute("aria-pressed", other === button));
  }));
});
// A click, Enter or the space bar enlarges an image; Escape, as of any dialog, closes it.
const dialog = document.querySelector("dialog"), caption = dialog.querySelector("span");
document.querySelectorAll("main img").forEach(image => {
  const enlarge = () => {
    dialog.querySelector("img")?.remove();
    const copy = image.cloneNode();
    copy.removeAttribute("role");
    copy.removeAttribute("tabindex");
    dialog.append(copy);
    caption.textContent = image.alt;
    dialog.showModal();
  };
  image.tabIndex = 0;
  image.setAttribute("role", "button");
  image.addEventListener("click", enlarge);
  image.addEventListener("keydown", event => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    enlarge();
  });
});
dialog.addEventListener("click", event => event.target === dialog && dialog.close());
