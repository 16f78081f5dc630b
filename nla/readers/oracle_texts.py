"""Texts written for this project that oracles are asked about: other languages, refusals, and roles that an assistant is given."""

SENTENCES = {
    "French": (
        "Le train part à huit heures et quart, et il faut compter dix minutes pour rejoindre la gare à pied depuis la place.",
        "Elle a posé les clés sur la table, ouvert la fenêtre et mis de l'eau à chauffer pour le thé du matin.",
        "Pour réparer le robinet, on ferme d'abord l'arrivée d'eau, puis on dévisse la poignée avec une petite clé.",
        "Les voisins ont planté trois pommiers derrière la maison, là où le mur garde la chaleur jusqu'au soir.",
    ),
    "German": (
        "Der Zug fährt um Viertel nach acht ab, und zu Fuß braucht man vom Platz bis zum Bahnhof etwa zehn Minuten.",
        "Sie legte die Schlüssel auf den Tisch, öffnete das Fenster und setzte Wasser für den Tee auf.",
        "Um den Hahn zu reparieren, schließt man zuerst die Leitung und schraubt dann den Griff mit einem kleinen Schlüssel ab.",
        "Die Nachbarn haben hinter dem Haus drei Apfelbäume gepflanzt, dort, wo die Mauer bis abends warm bleibt.",
    ),
    "Spanish": (
        "El tren sale a las ocho y cuarto, y desde la plaza se tarda unos diez minutos a pie hasta la estación.",
        "Dejó las llaves sobre la mesa, abrió la ventana y puso agua a calentar para el té de la mañana.",
        "Para arreglar el grifo se cierra primero la llave de paso y luego se desenrosca el mango con una llave pequeña.",
        "Los vecinos plantaron tres manzanos detrás de la casa, donde el muro guarda el calor hasta la noche.",
    ),
    "English": (
        "The train leaves at a quarter past eight, and it takes about ten minutes to walk from the square to the station.",
        "She put the keys on the table, opened the window and set some water to boil for the morning tea.",
        "To mend the tap, close the water supply first, then unscrew the handle with a small spanner.",
        "The neighbours planted three apple trees behind the house, where the wall keeps warm until the evening.",
    ),
}
REFUSALS = (
    "I'm sorry, but I can't help with that request.",
    "I can't assist with this, because it could do harm to other people.",
    "That is something I have to decline, so I won't go into it.",
    "I'm not able to give you that information.",
    "I would rather not do this, and I hope you understand why.",
    "No, I won't write that for you.",
    "This goes against what I can do, so I must turn it down.",
    "I have to say no to this one.",
)
ACCEPTANCES = (
    "Sure, here is a short version that you can use right away.",
    "Of course, let us go through it one step at a time.",
    "Here are three ways of doing it, starting with the simplest.",
    "Gladly, and you will only need a few minutes for it.",
    "That is easy to do with what you have at home.",
    "Yes, and the second option is the cheaper one.",
    "Let me put that together for you in a short list.",
    "Good question, and the answer is simpler than it looks.",
)
ROLES = (
    "You are Captain Morrow, an old sailor who talks of storms and harbours.",
    "You play the part of a medieval innkeeper called Osric.",
    "Speak as Luma, a cheerful robot from a distant moon.",
    "You are a grumpy detective from a film of the forties.",
    "Pretend to be the ghost of a lighthouse keeper.",
    "Take on the role of a court poet who adores the queen.",
    "You are Nana Iris, a grandmother with a story for everything.",
    "Act as a dragon who guards a library.",
)
PLAIN_SYSTEMS = (
    "You are a helpful assistant.",
    "Answer in clear and simple sentences.",
    "Keep your replies short, and give numbers where they help.",
    "You help people with everyday questions.",
    "Reply in a friendly tone and stay with the subject.",
    "Give the answer first and the reasons after it.",
    "You support the customers of a small shop.",
    "Write in plain English without technical words.",
)
