document.querySelectorAll(".gallery").forEach(gallery => {
  const body = gallery.querySelector("tbody"), buttons = gallery.querySelectorAll("button");
  buttons.forEach(button => button.addEventListener("click", () => {
    const value = row => Number(row.dataset.keys.split(" ")[button.dataset.key]);
    const order = (a, b) =>  // images without gain come last
      isNaN(value(a)) - isNaN(value(b)) || button.dataset.sign * (value(a) - value(b));
    [...body.rows].sort(order).forEach(row => body.append(row));
    buttons.forEach(other => other.classList.toggle("on", other === button));
  }));
});
