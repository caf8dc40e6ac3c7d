/*
 * A provisioner process: cmd/rbd-provisioner/app (lease), provisioner (jobs), rbdutil (the
 * idempotent layer). It does one job at a time for the image, under its reservation.
 */

#define SUBMIT(what, which) atomic { \
  operation[me].kind = what; operation[me].id = which; \
  operation[me].record = image[which].record; operation[me].sized = image[which].sized; \
  operation[me].unwritten = 0 }

/* WAIT continues if the operation succeeded, and ends the job if it failed. The leader can also
 * stop waiting (a timeout, or SIGTERM) while its client goes on; a later job reads again. */
#define PENDING (operation[me].kind != IDLE)
#define WAIT \
  if \
  :: !PENDING && operation[me].ok \
  :: !PENDING && !operation[me].ok -> goto end_of_job \
  :: atomic { PENDING && timeouts < TIMEOUTS -> timeouts++; goto end_of_job } \
  :: PENDING && me < LEADERS -> goto leave \
  fi

/* READ is a read in Ceph, which rejects those of a blocklisted client, too. */
#define REACHABLE (!(blocked & BIT(me)))
#define READ(variable) atomic { \
  if \
  :: REACHABLE -> variable = named \
  :: else -> denied[me] = 1; goto end_of_job \
  fi }

/* READY: the process can start a job. */
#define READY (!PENDING && !denied[me])

/* MAY_RELEASE: a clean stop gives the lease back only without an operation under way. */
#ifdef EARLY_RELEASE
#define MAY_RELEASE true
#else
#define MAY_RELEASE (!PENDING)
#endif

/* INDEXED: another volume names the image; the leaders have an index by pool and image. */
#ifdef NO_INDEX
#define INDEXED false
#else
#define INDEXED second
#endif

/* CLEANABLE: the trash cleaner can restore the image or remove its data. The name of a volume's
 * image identifies it, so an image in the trash is needed only while no other has its name. The
 * record can have changed since the check before the move. */
#if defined(GC_BY_NAME) || defined(PURGE_BY_MARK)
#define CHANGED_OWNER(i) false
#else
#define CHANGED_OWNER(i) (image[i].record == FOREIGN)
#endif
#define NEEDED(i)  (named == 0 && (CHANGED_OWNER(i) || (LIVING || INDEXED) && image[i].record == OURS))
#define USELESS(i) (!CHANGED_OWNER(i) && (volume == ABSENT && !INDEXED || named != 0 && image[i].record != OURS))
#ifdef NO_PURGE_CHECK
#define CLEANABLE(i) (image[i].trashed && image[i].mark)
#else
#define CLEANABLE(i) (image[i].trashed && image[i].mark && (NEEDED(i) || USELESS(i)))
#endif

/* An image of ours, or the beginning of an image, that was never written to. */
#define ORPHAN (named != 0 && !image[named].written && \
  (image[named].record == OURS || image[named].record == NONE && !image[named].sized))

/* One conditional update of the lease. */
inline recordClient() {
  atomic {
    if
    :: holder == me -> recorded = recorded | BIT(me)
    :: else -> goto exit
    fi
  }
}

/* Create the PV; the name makes it idempotent. The API server does not fence: a process that
 * has lost the lease can still do this. */
inline saveVolume() {
  atomic {
    if
    :: volume == ABSENT -> volume = SAVED; version++
    :: else
    fi
  }
}

proctype Leader(byte me) {
  byte fence;        /* clients that the lease named when it was taken */
  byte id;           /* an image that a job is about */
  byte seenVersion;  /* the volume as the live GET returned it */

  /* Take the lease: it was given back, or its holder has not renewed it. The holder does not
   * notice. One step, as it is one conditional update. It keeps the recorded clients. */
  atomic {
    term == me - 1 -> term = me; holder = me; fence = recorded;
#ifdef FORGET
    recorded = 0
#endif
  }
#ifndef NO_FENCE
  blocked = blocked | fence;
#endif
  fence = 0;
#ifndef NO_RECORD
  recordClient();
#endif

end_of_job:
  do
  :: denied[me] -> goto exit
  /* The last leader stays, so that the quiet state shows what a leader achieves. */
  :: me < LEADERS -> goto leave
#ifdef NO_RECORD
  :: atomic { PENDING && !(recorded & BIT(me)) && holder == me -> recorded = recorded | BIT(me) }
#endif

#ifdef PROVISION_PLAIN
  /* Birth of an image: create, record, size, PV. Size 0 without a record is the beginning of
   * an image, whoever made it. */
  :: READY && claim && volume == ABSENT ->
       SUBMIT(CREATE, 0); WAIT;
       READ(id);
       if
       :: image[id].record == OURS || image[id].record == NONE && !image[id].sized
       :: else -> goto end_of_job
       fi;
       SUBMIT(COMPLETE, 0); WAIT;
       saveVolume()
#endif

#ifdef PROVISION_CLONE
  /* Birth of a clone: snapshot, clone, record, size, PV. */
  :: READY && claim && volume == ABSENT ->
       READ(id);
       if
       :: id != 0 && image[id].record != OURS ->
            /* Partial, and the snapshot shows that it is ours: make it again. */
            if
            :: hasSnapshot
            :: else -> assert(false)
            fi;
            SUBMIT(MOVE, id); WAIT;
            id = 0
       :: else
       fi;
       if
       :: id == 0 ->
            SUBMIT(SNAPSHOT, 0); WAIT;
            SUBMIT(CLONE, 0); WAIT
       :: else
       fi;
       SUBMIT(COMPLETE, 0); WAIT;
       saveVolume()
#endif

#ifdef DELETE_VOLUMES
  /* An event from the cache starts the attempt; a live GET decides. */
  :: atomic { READY && cachedVolume == RELEASED && !cachedRetain && !INDEXED ->
         seenVersion = cachedVersion;
         if
         :: LIVING -> lived = lived | BIT(me)
         :: else
         fi }
#ifndef CACHE_DELETE
       atomic {
         if
         :: DELETABLE -> seenVersion = version
         :: else -> lived = lived & ~BIT(me); goto end_of_job
         fi
       }
#endif
       READ(id);
       if
       :: id != 0 && image[id].record == OURS -> SUBMIT(MOVE, id); WAIT
       :: id != 0 && image[id].record != OURS -> goto end_of_job
       :: id == 0     /* it is gone already */
       fi;
       /* Remove the PV, on the condition that it is unchanged since the GET. */
       atomic {
         if
#ifdef BLIND_REMOVE
         :: volume != ABSENT -> volume = ABSENT; version++
#else
         :: volume != ABSENT && version == seenVersion -> volume = ABSENT; version++
#endif
         :: else
         fi;
         id = 0; seenVersion = 0; lived = lived & ~BIT(me)
       }
#endif

  /* Trash cleaner: list the trash, GET the PV, then restore or remove. */
  :: atomic { READY && REACHABLE && SOME(CLEANABLE) ->
         if
         :: CLEANABLE(1) -> id = 1
         :: CLEANABLE(2) -> id = 2
         :: CLEANABLE(3) -> id = 3
         :: CLEANABLE(4) -> id = 4
         :: CLEANABLE(5) -> id = 5
         fi }
       atomic {  /* the live GET and the index */
#ifdef NO_PURGE_CHECK
         SUBMIT(PURGE, id)
#else
         if
         :: NEEDED(id) -> SUBMIT(RESTORE, id)
         :: !NEEDED(id) && USELESS(id) -> SUBMIT(PURGE, id)
         :: else -> id = 0; goto end_of_job
         fi
#endif
       }
       id = 0;
       WAIT

#ifdef COLLECT_ORPHANS
  /* Garbage collection: an image in the pool's list without claim and volume. */
  :: atomic { READY && REACHABLE && !claim && volume == ABSENT && ORPHAN -> id = named }
#ifdef GC_BY_NAME
       SUBMIT(MOVE, id);  /* decided from what was seen in the list */
#else
       if            /* GET the claim */
       :: !claim
       :: else -> goto end_of_job
       fi;
       if            /* GET the volume */
       :: volume == ABSENT
       :: else -> goto end_of_job
       fi;
       atomic {      /* read the image, and submit the move of what was read */
         if
         :: REACHABLE && ORPHAN -> SUBMIT(MOVE, named); operation[me].unwritten = 1
         :: else -> goto end_of_job
         fi
       }
#endif
       id = 0;
       WAIT
#endif
  od;

leave:
  if
  :: atomic { holder == me && MAY_RELEASE -> holder = 0; recorded = 0 }  /* a clean stop */
  :: crashed[me] = 1
  fi;
exit:
  skip
}
