"""Pages and JSON about the published profiles, for one team on its own machine: `profile-pipeline serve`.

Everything shown is read from the generation that `current` leads to, never from the warehouse of a run at work. Two
things write: a decision about a doubtful pair, the way `profile-pipeline review decide` does, and the audit file,
which has a row for every profile that somebody looked at.

`shelf` opens generations, `search` finds profiles, `portrait` gathers what a profile page shows, `masking` hides what
is sensitive, `audience_pages` and `questions` are the lists; `graph` draws, `pages` and `api` answer, `security` lets
in whom the token lets in, `app` puts it together. What a value means is decided in the stages, not here.
"""
