/*
 * The API server, what users and Kubernetes do with claim and volume, another cluster that
 * shares the pool, and the check of the state in which everything is quiet.
 */

/* Each change of the volume is one update of the object in the API server. */
#define CHANGED version++; \
  if \
  :: DELETABLE -> keep = (data != 0 && second); lived = 0 \
  :: else -> keep = (data != 0) \
  fi

/* The user, the PV controller, and a pod with the claim. */
proctype Kubernetes() {
  byte deletions = CLAIM_DELETIONS;
  byte changes = POLICY_CHANGES;
end:
  do
  :: d_step { deletions > 0 && claim -> claim = 0; deletions-- }
  :: d_step { changes > 0 && volume != ABSENT -> retain = 1 - retain; changes--; CHANGED }
  :: d_step { volume == SAVED && claim -> volume = BOUND; CHANGED }
  :: d_step { (volume == SAVED || volume == BOUND) && !claim -> volume = RELEASED; CHANGED }
  /* A pod finds the image by name and writes. One write is enough for the properties. */
  :: d_step { volume == BOUND && data == 0 && named != 0 && image[named].sized ->
       image[named].written = 1; data = named; keep = 1 }
  /* The leaders' informer cache follows, at any time later. */
  :: d_step { cachedVersion != version ->
       cachedVolume = volume; cachedRetain = retain; cachedVersion = version }
  od
}

#ifdef SHARED
/* Another cluster provisions into the same pool. Its claim is unknown here, and the lease and
 * the blocklist of this cluster do not concern it. */
proctype Foreign() {
  byte handle;
end_create:
  if
  :: atomic { named == 0 && made < 2 -> NEW }  /* bounded: garbage collection may undo it */
  :: named != 0
  fi;
  atomic {
    if
    :: named != 0 -> handle = named; image[handle].handles++
    :: else -> goto end_create
    fi
  }
  image[handle].record = FOREIGN;
  atomic { image[handle].sized = 1; image[handle].handles-- }
  foreignBound = 1;
end:
  atomic { named != 0 && image[named].sized -> image[named].written = 1; data = named; keep = 1 }
}
#endif

/* The state in which no process can take a step: the last leader has done all it can. */
#define NO_IMAGE    !SOME(HERE)
#define HAS_NAME    (named != 0 && image[named].sized && (data == 0 || named == data))

/* A scenario that must be reachable. Otherwise a property could hold because nothing happens. */
#if defined(PLAIN)      /* an image is created, written to, deleted and purged */
#define SEEN (data != 0 && volume == ABSENT && NO_IMAGE && term == LEADERS)
#elif defined(CLONES)   /* a pod writes to the clone that a successor made again */
#define SEEN (data > 1 && lastWriter == LEADERS && image[1].trashed == 0)
#elif defined(DELETION) /* an image is restored, because its owner has set Retain */
#define SEEN (restored && LIVING && named == data)
#elif defined(SHARED)   /* an image is restored, because another cluster completed it */
#define SEEN (restored && data != 0)
#endif

proctype Quiet() {
  atomic {
    timeout ->
      CHECK(NAME, !(volume == BOUND || (LIVING || second) && data != 0) || HAS_NAME && image[named].record == OURS);
      CHECK(NAME, !foreignBound || HAS_NAME && image[named].record == FOREIGN);
      CHECK(LEAK, claim || volume != ABSENT || foreignBound || NO_IMAGE);
      CHECK(LEAK, !claim || volume == BOUND);
#if ONLY == SCENARIO
      assert(!(SEEN))
#endif
  }
}

init {
  byte n;
  d_step {
    n = 1;
#ifdef DELETION
    claim = 1; volume = BOUND; cachedVolume = BOUND;
    made = 1; named = 1; data = 1; keep = 1;
    image[1].record = OURS; image[1].sized = 1; image[1].written = 1;
#elif !defined(SHARED)
    claim = 1
#endif
  }
#ifdef DELETION
  if
  :: second = 1
  :: skip
  fi;
#endif
  atomic {
    do
    :: n <= LEADERS -> run Leader(n); run Client(n); n++
    :: else -> break
    od;
    run Kubernetes();
#ifdef SHARED
    run Foreign();
#endif
    run Quiet()
  }
}
