/*
 * A leader's Ceph client: rbdutil/librbd and librbd itself.
 *
 * Each step below is one operation on one object, which Ceph executes as a whole. Steps of
 * one librbd call are separate, because the process can stop between them and because a
 * queued step can be executed late. Ceph rejects each step of a blocklisted client.
 */

#define DENIED (blocked & BIT(me))
#define DO(operation_kind) operation[me].kind == operation_kind && !DENIED
#define FINISH(result) operation[me].ok = result; operation[me].kind = IDLE; step = 0; x = 0

/* EFFECT precedes each change in Ceph: no leader changes Ceph after its successor has. */
#define EFFECT CHECK(WRITER, me >= lastWriter); lastWriter = me

/* NEW creates the header of an image of size 0 under the name, in one step. In Ceph these
 * are several; a name without a header is left out, see README.md. */
#ifdef ONLY  /* a mutation can need more ids: those orders of steps are not explored */
#define NEW made < IDS; made++; named = made
#else
#define NEW assert(made < IDS); made++; named = made
#endif

/* HERE: the image exists, under the name or in the trash. */
#define HERE(i) (named == i || image[i].trashed)

/* REMOVE destroys an image and its data. */
#define REMOVE(i) CHECK(DATA, MAY_LOSE(i)); image[i].trashed = 0; image[i].parent = 0; \
  image[i].record = NONE; image[i].sized = 0; image[i].mark = 0

proctype Client(byte me) {
  byte step;  /* progress of the operation */
  byte x;     /* the image that is open */
end:
  do
  /* A blocklisted client gets ESHUTDOWN for each step; then its process exits. */
  :: atomic { operation[me].kind != IDLE && DENIED -> denied[me] = 1; FINISH(0) }
  /* The process has crashed, and the rest of the operation was not sent. */
  :: atomic { operation[me].kind != IDLE && crashed[me] -> FINISH(0) }

  /* rbd_create with size 0. That the name is taken is no error: the leader looks next. */
  :: atomic { DO(CREATE) ->
       if
       :: named == 0 -> EFFECT; NEW
       :: else
       fi;
       FINISH(1) }

  /* rbd_snap_create and protect; repeating it changes nothing. */
  :: atomic { DO(SNAPSHOT) -> EFFECT; hasSnapshot = 1; FINISH(1) }

  /* rbd_clone. */
  :: atomic { DO(CLONE) && step == 0 ->         /* create the child's header under the name */
       if
       :: named == 0 -> EFFECT; NEW; step = 1
       :: else -> FINISH(0)
       fi }
  :: atomic { DO(CLONE) && step == 1 ->         /* librbd opens the child BY NAME */
       x = named;
       if
       :: x == 0 -> FINISH(0)
       :: else -> step = 2
       fi }
  :: atomic { DO(CLONE) && step == 2 ->         /* attach the parent to what it opened */
       if
       :: HERE(x) && !image[x].parent -> EFFECT; image[x].parent = 1; step = 3
       :: !HERE(x) || image[x].parent -> step = 4
       :: errors < ERRORS -> errors++; step = 4
       fi }
  :: atomic { DO(CLONE) && step == 3 ->         /* copy the source's metadata */
       if
       :: HERE(x) -> EFFECT; image[x].record = SOURCE; FINISH(1)
       :: !HERE(x) -> step = 4
       :: errors < ERRORS -> errors++; step = 4
       fi }
  :: atomic { DO(CLONE) && step == 4 ->         /* on failure: remove what has the name */
       if
       :: named != 0 -> EFFECT; REMOVE(named); named = 0
       :: else
       fi;
       FINISH(0) }

  /* Update: open by name, write the record, set the size. */
  :: atomic { DO(COMPLETE) && step == 0 ->
       x = named;
       if
       :: x == 0 -> FINISH(0)
       :: else -> step = 1
       fi }
  :: atomic { DO(COMPLETE) && step == 1 ->
       if
       :: HERE(x) -> EFFECT; image[x].record = OURS; step = 2
       :: else -> FINISH(0)
       fi }
  :: atomic { DO(COMPLETE) && step == 2 ->
       if
       :: HERE(x) -> EFFECT; image[x].sized = 1; FINISH(1)
       :: else -> FINISH(0)
       fi }

  /* MoveToTrash: check the open image, mark it, rbd_trash_move, which works by name. */
  :: atomic { DO(MOVE) && step == 0 ->
       x = named;
       if
       :: x == 0 -> FINISH(1)                   /* it is gone already */
#ifdef GC_BY_NAME
       :: else -> step = 1
#else
       :: x != 0 && x == operation[me].id && image[x].record == operation[me].record &&
            image[x].sized == operation[me].sized && image[x].handles == 0 &&
            !(operation[me].unwritten && image[x].written) -> step = 1
       :: else -> FINISH(0)
#endif
       fi }
  :: atomic { DO(MOVE) && step == 1 -> EFFECT; image[x].mark = 1; step = 2 }
  :: atomic { DO(MOVE) && step == 2 ->
       if
       :: named != 0 ->
            CHECK(NAME, !(lived & BIT(me)));
            EFFECT; image[named].trashed = 1; named = 0
       :: else
       fi;
       FINISH(1) }

  /* rbd_trash_restore under the old name, by id. */
  :: atomic { DO(RESTORE) ->
       x = operation[me].id;
       if
       :: named == 0 && image[x].trashed -> EFFECT; image[x].trashed = 0; image[x].mark = 0; named = x; restored = 1
       :: else
       fi;
       FINISH(1) }

  /* RemoveFromTrash: check the open image by id, then rbd_trash_remove by id. */
  :: atomic { DO(PURGE) && step == 0 ->
       x = operation[me].id;
       if
#if defined(GC_BY_NAME) || defined(PURGE_BY_MARK)
       :: image[x].trashed && image[x].mark -> step = 1
#else
       :: image[x].trashed && image[x].mark && image[x].handles == 0 &&
            image[x].record == operation[me].record && image[x].sized == operation[me].sized -> step = 1
#endif
       :: else -> FINISH(0)
       fi }
  :: atomic { DO(PURGE) && step == 1 ->
       if
       :: image[x].trashed && image[x].handles == 0 -> EFFECT; REMOVE(x)
       :: else                                  /* Ceph answers EBUSY or ENOENT */
       fi;
       FINISH(1) }
  od
}
