// A reference text token by token: kept ones outlined, shaded by the attention they receive. Text by textContent only.
export default function ({ parentElement: root, data }) {
  root.querySelector('.strip').replaceChildren(...data.tokens.map((token) => {
    const piece = document.createElement('span');
    piece.className = token.kept ? 'token kept' : 'token';
    piece.setAttribute('role', 'listitem');
    piece.textContent = token.text;
    if (token.kept) {
      const share = `${(100 * token.share).toFixed(1)} %`;
      piece.title = `kept; attention ${share}`;
      piece.setAttribute('aria-label', `${token.text}, kept, attention ${share}`);
      piece.style.backgroundColor = `rgba(15, 138, 106, ${Math.min(0.08 + 0.9 * Math.sqrt(token.share), 0.75)})`;
    }
    return piece;
  }));
}
