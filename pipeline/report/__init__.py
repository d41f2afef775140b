"""What a run found, as one page of HTML: `content` gathers it, `page` renders it."""
